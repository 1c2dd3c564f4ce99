"""What has arrived, in a database of the stand-in's own. An event counts once for each way by which it came."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from deploy.standin.proof import proven

TABLES = """
CREATE TABLE IF NOT EXISTS arrived (via, source, id, wallet, event, UNIQUE (via, source, id));
CREATE TABLE IF NOT EXISTS heads (via, feed, wallet, seq, hash, UNIQUE (via, feed, wallet));
"""


class Inbox:
    """Used by several threads at once: each call has its own connection."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "inbox.sqlite"
        with self._transaction() as db:
            for statement in TABLES.strip().split("\n"):
                db.execute(statement)

    def take(self, via: str, event: dict[str, Any]) -> bool:
        """Store the event, and do here, in the same db transaction, what it asks of your application. False if it had
        arrived before. Raises Incomplete, and then stores nothing.
        """
        with self._transaction() as db:
            key = (via, event["source"], event["id"])
            if db.execute("SELECT 1 FROM arrived WHERE (via, source, id) = (?, ?, ?)", key).fetchone():
                return False
            if "previousHash" in event["data"]:
                self._prove(db, via, event)
            row = (*key, event["data"].get("walletId"), json.dumps(event))
            db.execute("INSERT INTO arrived VALUES (?, ?, ?, ?, ?)", row)
            return True

    def arrived(self, via: str, wallet: str) -> list[dict[str, Any]]:
        """The events of a wallet that came by this way, the newest first."""
        query = "SELECT event FROM arrived WHERE (via, wallet) = (?, ?) ORDER BY rowid DESC LIMIT 100"
        with self._transaction() as db:
            return [json.loads(event) for (event,) in db.execute(query, (via, wallet))]

    def _prove(self, db: sqlite3.Connection, via: str, event: dict[str, Any]) -> None:
        """Move the wallet's head, unless the movement is an earlier one, which a replay brings. After a restore the
        feed is another one, and its proof begins anew.
        """
        key = (via, event["feedid"], event["data"]["walletId"])
        head = db.execute("SELECT seq, hash FROM heads WHERE (via, feed, wallet) = (?, ?, ?)", key).fetchone()
        following = proven(head, event["data"])
        if following:
            db.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?)", (*key, *following))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=10, isolation_level=None)) as db, db:
            db.execute("BEGIN IMMEDIATE")
            yield db
