"""The old system's files, and the commands that read them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.people import Person

ORDERS_HEADER = "orderId,user,amount,currency,status,orderedAt"
DEPOSITS_HEADER = "user,amount,currency,reference,depositedAt"


class OldSystem:
    """Writes files, and runs `flask wallets …` on them. Order ids are its own: each file is complete."""

    def __init__(self, app: Flask, folder: Path) -> None:
        self.app = app
        self.folder = folder

    def orders(self, *lines: str, header: str = ORDERS_HEADER) -> None:
        self._write("orders.csv", header, lines)

    def deposits(self, *lines: str, header: str = DEPOSITS_HEADER) -> None:
        self._write("deposits.csv", header, lines)

    def _write(self, name: str, header: str, lines: tuple[str, ...]) -> None:
        # What tests say with lone surrogates is no UTF-8 on the disk.
        text = "".join(f"{line}\r\n" for line in (header, *lines))
        (self.folder / name).write_bytes(text.encode(errors="surrogateescape"))

    def files(self) -> list[str]:
        names = [name for name in ("orders", "deposits") if (self.folder / f"{name}.csv").exists()]
        return [word for name in names for word in (f"--{name}", str(self.folder / f"{name}.csv"))]

    def bring(self, *options: str, tenant: str = "eur") -> Result:
        return self.run("import", *self.files(), "--tenant", tenant, *options)

    def run(self, *arguments: str) -> Result:
        result = self.app.test_cli_runner().invoke(args=["wallets", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result


class Books:
    """The posted state of a tenant, in a superuser's view."""

    def __init__(self, database: Database, slug: str) -> None:
        self.connection = database.as_superuser()
        self.connection.execute(f"SET search_path TO {slug}_schema")

    def openings(self, person: Person, currency: str | None = None) -> list[int]:
        """The amounts of the person's opening transactions, by currency and in order."""
        query = (
            "SELECT t.amount_minor FROM wallet_transactions t JOIN wallets w ON w.id = t.wallet_id"
            " WHERE w.user_id = %s AND t.type = 'opening' AND (%s::text IS NULL OR w.currency = %s)"
            " ORDER BY w.currency, t.seq"
        )
        return [amount for (amount,) in self.connection.execute(query, (person.user_id, currency, currency))]

    def wallet(self, person: Person, column: str) -> list[object]:
        query = f"SELECT {column} FROM wallets WHERE user_id = %s ORDER BY currency"
        return [value for (value,) in self.connection.execute(query, (person.user_id,))]

    def reconciled(self, person: Person) -> list[tuple[object, ...]]:
        """Currency, calculated, posted, difference, refused by."""
        query = (
            "SELECT currency, calculated_minor, posted_minor, difference_minor, refused_by FROM reconciliations"
            " WHERE user_id = %s ORDER BY currency"
        )
        return self.connection.execute(query, (person.user_id,)).fetchall()

    def everything(self) -> list[object]:
        """The number of rows in each table that an import writes."""
        tables = ("wallets", "wallet_transactions", "ledger_entries", "reconciliations", "audit_log")
        counts = (self.connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables)
        return [count[0] for count in counts if count]


@pytest.fixture
def old(app: Flask, tmp_path: Path) -> OldSystem:
    return OldSystem(app, tmp_path)


@pytest.fixture
def books(database: Database) -> Iterator[Books]:
    yield Books(database, "eur")
    database.close()
