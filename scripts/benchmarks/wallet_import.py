"""The rate of `flask wallets import`, compared with plain SQL on the same files.

Plain SQL copies the files into tables without constraints, and inserts a wallet and a transaction for each user.
Afterwards each balance must be posted once, a second import must post nothing, and the audit must have no findings.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import psycopg
from flask import Flask

from app import create_app
from app.money import format_minor
from scripts.benchmarks.installation import Installation, make_database, throwaway_installation
from scripts.benchmarks.measurement import BenchmarkFailed
from scripts.benchmarks.posting import Announce
from tenant_schemas.flask import EXTENSION

ORDERS_EACH = 3
SLUG = "eur"
# The expected seconds of each step for a thousand users, for the progress bar.
FIXED_SECONDS = 5.0
EXPECTED_SECONDS = {"plain SQL": 0.03, "importing": 0.45, "importing again": 0.15, "auditing": 0.03}
_BASELINE_TABLES = """
    CREATE TABLE users (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email text NOT NULL UNIQUE);
    CREATE TABLE orders (order_id text, email text, amount numeric, currency text, status text, ordered_at text);
    CREATE TABLE deposits (email text, amount numeric, currency text, reference text, deposited_at text);
    CREATE TABLE wallets (user_id uuid PRIMARY KEY, balance_minor bigint NOT NULL);
    CREATE TABLE transactions (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL, amount_minor bigint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now());
    INSERT INTO users (email) SELECT format('member%s@example.com', n) FROM generate_series(0, {last}) n"""
_BASELINE_POSTS = """
    WITH amounts AS (
        SELECT email, amount FROM deposits
        UNION ALL SELECT email, -amount FROM orders WHERE status = 'paid'
    ), balances AS (
        SELECT u.id, (sum(a.amount) * 100)::bigint AS balance_minor
        FROM amounts a JOIN users u ON u.email = a.email GROUP BY u.id
    ), opened AS (
        INSERT INTO wallets SELECT * FROM balances
    ) INSERT INTO transactions (user_id, amount_minor) SELECT * FROM balances"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options. `users` is the number of users in the files."""

    users: int

    @property
    def expected_seconds(self) -> float:
        return FIXED_SECONDS + sum(EXPECTED_SECONDS.values()) * self.users / 1000


@dataclass(frozen=True, slots=True)
class Report:
    """`posted` is the number of transactions in the ledger after both imports, `due` the number of balances in the
    files that are not zero; `posted_minor` and `due_minor` are their sums.
    """

    machine: dict[str, Any]
    rows: int
    baseline_seconds: float
    import_seconds: float
    again_seconds: float
    posted: int
    posted_minor: int
    due: int
    due_minor: int
    audit: str
    is_sound: bool


def run(plan: Plan, announce: Announce) -> Report:
    """Set up an installation, measure, audit the ledger, and remove everything. Raises BenchmarkFailed."""

    def timed(step: str, work: Callable[..., object], *arguments: Any) -> float:
        announce(step, EXPECTED_SECONDS[step] * plan.users / 1000)
        begun = monotonic()
        work(*arguments)
        return monotonic() - begun

    announce("making the server", FIXED_SECONDS)
    with throwaway_installation(plan.users, with_wallets=False) as installation, TemporaryDirectory() as folder:
        orders, deposits = Path(folder, "orders.csv"), Path(folder, "deposits.csv")
        balances = _write_files(plan.users, orders, deposits)
        baseline_url = _make_baseline(installation, plan.users)
        with _application(installation) as app:
            baseline_seconds = timed("plain SQL", _import_by_sql, baseline_url, orders, deposits)
            import_seconds = timed("importing", _import, app, orders, deposits)
            again_seconds = timed("importing again", _import, app, orders, deposits)
            announce("auditing", EXPECTED_SECONDS["auditing"] * plan.users / 1000)
            audit = app.test_cli_runner().invoke(args=["wallets", "audit"])
        posted, posted_minor = _posted(installation)
        due, due_minor = sum(balance != 0 for balance in balances), sum(balances)
        return Report(
            machine=installation.machine(),
            rows=plan.users * (ORDERS_EACH + 1),
            baseline_seconds=baseline_seconds,
            import_seconds=import_seconds,
            again_seconds=again_seconds,
            posted=posted,
            posted_minor=posted_minor,
            due=due,
            due_minor=due_minor,
            audit=audit.output.strip(),
            is_sound=audit.exit_code == 0 and (posted, posted_minor) == (due, due_minor),
        )


@contextmanager
def _application(installation: Installation) -> Iterator[Flask]:
    app = create_app(installation.settings)
    try:
        yield app
    finally:
        app.extensions[EXTENSION].close()


def _write_files(users: int, orders: Path, deposits: Path) -> list[int]:
    """Returns the balances. Every seventh order is cancelled, and some users have a negative balance."""
    balances = [10_000 - number * 13 % 8000 for number in range(users)]
    with deposits.open("w", encoding="utf-8") as file:
        file.write("user,amount,currency,reference,depositedAt\r\n")
        for number, balance_minor in enumerate(balances):
            file.write(f"member{number}@example.com,{format_minor(balance_minor, 'EUR')},EUR,old,2026-01-01\r\n")
    with orders.open("w", encoding="utf-8") as file:
        file.write("orderId,user,amount,currency,status,orderedAt\r\n")
        for number in range(users * ORDERS_EACH):
            amount_minor, status = 101 + number * 37 % 5900, "paid" if number % 7 else "cancelled"
            balances[number % users] -= amount_minor if status == "paid" else 0
            amount = format_minor(amount_minor, "EUR")
            file.write(f"{number},member{number % users}@example.com,{amount},EUR,{status},2026-01-31\r\n")
    return balances


def _make_baseline(installation: Installation, users: int) -> str:
    url = make_database(installation, "baseline")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_BASELINE_TABLES.format(last=users - 1).encode())
    return url


def _import_by_sql(url: str, orders: Path, deposits: Path) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for table, path in (("orders", orders), ("deposits", deposits)):
            with cursor.copy(f"COPY {table} FROM STDIN (FORMAT csv, HEADER)".encode()) as copy, path.open("rb") as file:
                while piece := file.read(1 << 20):
                    copy.write(piece)
        cursor.execute(_BASELINE_POSTS)


def _import(app: Flask, orders: Path, deposits: Path) -> None:
    command = ["wallets", "import", "--tenant", SLUG, "--orders", str(orders), "--deposits", str(deposits)]
    result = app.test_cli_runner().invoke(args=command)
    if result.exit_code:
        raise BenchmarkFailed(f"flask {' '.join(command)} failed:\n{result.output}\n{result.exception!r}")


def _posted(installation: Installation) -> tuple[int, int]:
    tenant = next(tenant for tenant in installation.tenants if tenant.slug == SLUG)
    with psycopg.connect(installation.tenant_url(tenant)) as connection:
        found = connection.execute("SELECT count(*), coalesce(sum(amount_minor), 0)::bigint FROM wallet_transactions")
        posted, posted_minor = found.fetchone() or (0, 0)
        return posted, posted_minor


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON, in which the seconds of plain SQL have always been called `floor_seconds`."""
    figures = asdict(report)
    return {"floor_seconds": figures.pop("baseline_seconds"), **figures}
