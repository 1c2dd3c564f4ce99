"""Calculates balances from the old system's rows: one for each member and currency, and each wrong row by file and
line.

The rows go through a temporary SQLite database on disk, so sorting and finding repeated orders need no more memory for
a larger file.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from app.money import MAX_MINOR
from app.opening_balances.rows import (
    ORDERS,
    Kind,
    Line,
    Reader,
    WrongRow,
    as_text,
    find_member,
    lines_of,
    order_id_of,
    shown,
)

# Reports progress: done, total.
Announce = Callable[[int, int], None]

_CHUNK_LINES: Final = 5_000
_TABLES: Final = """
    CREATE TABLE rows (user_id, currency, amount_minor, canonical, file, line);
    CREATE TABLE orders (order_id, user_id, file, line);
    CREATE TABLE wrong_rows (file, line, stranger, text);
    CREATE INDEX wrong_rows_stranger ON wrong_rows (stranger);
    CREATE TABLE left_out (user_id PRIMARY KEY ON CONFLICT IGNORE) WITHOUT ROWID;
    CREATE TABLE balances (
        currency, user_id, calculated_minor, source_rows, source_hash, PRIMARY KEY (currency, user_id)) WITHOUT ROWID;
    CREATE VIEW repeated_orders AS SELECT * FROM (
        SELECT *, count(*) OVER same AS times, min(line) OVER same AS first
        FROM orders WINDOW same AS (PARTITION BY order_id)) WHERE times > 1;
"""


class Fault(NamedTuple):
    """A wrong row."""

    file: str
    line: int
    text: str


class Balance(NamedTuple):
    """The sum of a member's rows in one currency."""

    currency: str
    user_id: str
    calculated_minor: int
    source_rows: int
    source_hash: str


class Calculation:
    """`load` reads files; after `finish`, the balances and the wrong rows are known."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._scratch = sqlite3.connect("", isolation_level=None)  # SQLite's own temporary file
        self._scratch.execute("PRAGMA journal_mode = OFF")
        self._scratch.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._scratch.close()

    def load(self, kind: Kind, path: Path, announce: Announce) -> None:
        """Read one file. Raises WrongFile."""
        size = path.stat().st_size
        with path.open("rb") as file, as_text(file) as text:
            lines = lines_of(text, path.name, kind)
            while chunk := list(islice(lines, _CHUNK_LINES)):
                self._keep(kind, path.name, chunk)
                announce(min(size, file.tell()), size)

    def _keep(self, kind: Kind, file: str, lines: Iterable[Line]) -> None:
        rows: list[tuple[Any, ...]] = []
        orders: list[tuple[Any, ...]] = []
        self._scratch.execute("BEGIN")
        for line in lines:
            owner: str | None
            try:
                row = self._reader.row(kind, line.cells)
                owner = row.user_id
                rows.append((row.user_id, row.currency, row.amount_minor, row.canonical, file, line.number))
            except WrongRow as fault:
                owner = self._leave_out(line)
                self._add("wrong_rows", file, line.number, fault.stranger, str(fault))
            if kind is ORDERS and isinstance(line.cells, dict) and (name := order_id_of(line.cells)):
                orders.append((name, owner, file, line.number))
        self._scratch.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._scratch.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", orders)
        self._scratch.execute("COMMIT")

    def _leave_out(self, line: Line) -> str | None:
        """Exclude every user named in any cell of a wrong row, because their balances are uncertain. Returns one of
        them.
        """
        cells = list(line.cells.values() if isinstance(line.cells, dict) else line.cells)
        named = [member.user_id for cell in cells if (member := find_member(self._reader.directory, cell))]
        for user_id in named:
            self._add("left_out", user_id)
        return named[0] if named else None

    def finish(self) -> None:
        """Find repeated orders and add up the rows. Call it after all files are loaded."""
        self._scratch.execute("BEGIN")
        for order_id, owner, file, line, times, first in self._scratch.execute("SELECT * FROM repeated_orders"):
            text = f"order {shown(order_id)} appears {times} times, first in line {first}"
            self._add("wrong_rows", file, line, None, text)
            if owner is not None:
                self._add("left_out", owner)
        self._scratch.executemany("INSERT INTO balances VALUES (?, ?, ?, ?, ?)", self._added_up())
        self._scratch.execute("COMMIT")

    def _added_up(self) -> Iterator[Balance]:
        """The sum and the hash of a user's rows. They are hashed in a canonical order, so the order of lines in a file
        does not matter.
        """
        rows = self._scratch.execute(
            "SELECT user_id, currency, amount_minor, canonical, file, line FROM rows"
            " ORDER BY user_id, currency, canonical"
        )
        for (user_id, currency), group in groupby(rows, itemgetter(0, 1)):
            calculated_minor, count, digest = 0, 0, sha256()
            for *_, amount_minor, canonical, file, line in group:
                calculated_minor += amount_minor
                count += 1
                digest.update(canonical.encode() + b"\n")
                last = (file, line)
            if abs(calculated_minor) > MAX_MINOR:
                text = f"together with the user's other rows in {currency} it exceeds the largest amount"
                self._add("wrong_rows", *last, None, text)
                self._add("left_out", user_id)
            else:
                yield Balance(currency, user_id, calculated_minor, count, digest.hexdigest())

    def wrong_rows(self, limit: int) -> list[Fault]:
        query = "SELECT file, line, text FROM wrong_rows ORDER BY file, line LIMIT ?"
        return [Fault(*row) for row in self._scratch.execute(query, (limit,))]

    def strangers(self, size: int) -> Iterator[list[str]]:
        """The users in wrong rows that are no members of this tenant, each once, in batches."""
        names = self._scratch.execute("SELECT DISTINCT stranger FROM wrong_rows WHERE stranger IS NOT NULL")
        while page := [name for (name,) in names.fetchmany(size)]:
            yield page

    def are_elsewhere(self, strangers: Iterable[str]) -> None:
        """Record that these are users of the installation, but not members of this tenant."""
        changed = [(f"{stranger!r} is not a member of this tenant", stranger) for stranger in strangers]
        self._scratch.executemany("UPDATE wrong_rows SET text = ? WHERE stranger = ?", changed)

    def left_out(self) -> Iterator[str]:
        """The ids of the users with a wrong row."""
        return (user_id for (user_id,) in self._scratch.execute("SELECT user_id FROM left_out ORDER BY user_id"))

    def has_left_out(self, user_id: str) -> bool:
        return self._has("SELECT EXISTS (SELECT 1 FROM left_out WHERE user_id = ?)", user_id)

    def has_balance(self, currency: str, user_id: str) -> bool:
        return self._has("SELECT EXISTS (SELECT 1 FROM balances WHERE currency = ? AND user_id = ?)", currency, user_id)

    def count_rows(self) -> int:
        return self._number("SELECT count(*) FROM rows")

    def count_wrong_rows(self) -> int:
        return self._number("SELECT count(*) FROM wrong_rows")

    def count_left_out(self) -> int:
        return self._number("SELECT count(*) FROM left_out")

    def count_balances(self) -> int:
        return self._number("SELECT count(*) FROM balances WHERE user_id NOT IN left_out")

    def batches(self, size: int) -> Iterator[list[Balance]]:
        """The balances of all users without wrong rows. Each batch has one currency, and the order is always
        the same.
        """
        balances = self._scratch.execute(
            "SELECT * FROM balances WHERE user_id NOT IN left_out ORDER BY currency, user_id"
        )
        for _, group in groupby(map(Balance._make, balances), itemgetter(0)):
            while batch := list(islice(group, size)):
                yield batch

    def _add(self, table: str, *values: Any) -> None:
        places = ", ".join("?" * len(values))
        self._scratch.execute(f"INSERT INTO {table} VALUES ({places})", values)  # noqa: S608

    def _has(self, query: str, *values: str) -> bool:
        return bool(self._scratch.execute(query, values).fetchone()[0])

    def _number(self, query: str) -> int:
        return int(self._scratch.execute(query).fetchone()[0])
