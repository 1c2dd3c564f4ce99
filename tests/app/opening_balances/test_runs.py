"""An import may be killed at any moment or run twice at once: in the end each balance is posted once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pytest
from flask import Flask

from app.config import ROOT
from app.opening_balances import runs, service
from app.opening_balances.calculation import Calculation
from app.opening_balances.report import ReconciliationFile, Report
from app.opening_balances.rows import ORDERS, Reader
from app.wallets.currencies import allowed_currencies
from tenant_schemas.flask import tenant_context
from tenant_schemas.testing.plugin import Database
from tests.app.opening_balances.conftest import Books, OldSystem
from tests.conftest import SECRET_KEY, SIGNING_KEYS
from tests.factories.people import People, Person

LONGEST_SECONDS = 60
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    " AND usename = 'tenant_eur' AND query LIKE '%openings_post_v2%'"
)


@pytest.fixture
def members(people: People, old: OldSystem) -> list[Person]:
    """Three, in the order of their ids, each owing 1.00 by the old system's orders; the last one has a wallet."""
    members = sorted((people.make(eur="member") for _ in range(3)), key=lambda person: person.user_id)
    people.wallet(members[2], "eur")
    old.orders(*[f"{number},{person.email},1.00,,," for number, person in enumerate(members)])
    return members


@pytest.fixture
def last_is_locked(books: Books, members: list[Person]) -> Iterator[None]:
    """A lock on the last member's wallet."""
    books.connection.execute("BEGIN")
    books.connection.execute("SELECT FROM wallets WHERE user_id = %s FOR UPDATE", (members[2].user_id,))
    yield
    books.connection.execute("ROLLBACK")


def wait_until_waiting(database: Database, count: int) -> None:
    """Until this many imports wait for a lock."""
    connection, deadline = database.as_superuser(), monotonic() + LONGEST_SECONDS
    while connection.execute(WAITING).fetchone() != (count,):
        assert monotonic() < deadline
        sleep(0.02)


@pytest.mark.usefixtures("last_is_locked")
def test_an_import_killed_in_the_middle_of_a_batch_is_finished_by_running_it_again(
    database: Database, members: list[Person], old: OldSystem, books: Books
) -> None:
    command = ["wallets", "import", *old.files(), "--tenant", "eur", "--batch", "2"]
    environment = {
        "DATABASE_URL": database.app_url,
        "TENANT_SECRET": database.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
        "PATH": os.environ["PATH"],
    }
    with subprocess.Popen([sys.executable, "-m", "flask", *command], cwd=ROOT, env=environment) as killed:
        wait_until_waiting(database, 1)
        killed.kill()
    assert [books.openings(person) for person in members] == [[-100], [-100], []]
    books.connection.execute("ROLLBACK")
    result = old.bring("--batch", "2")
    assert result.exit_code == 0, result.output
    assert "EUR: 1 posted (-1.00), 2 unchanged" in result.output
    assert [books.openings(person) for person in members] == [[-100], [-100], [-100]]
    assert old.run("audit").exit_code == 0


def import_it(app: Flask, orders: Path, batch: int) -> Report:
    with app.app_context(), tenant_context("eur"):
        people = runs.read_directory()
        with Calculation(Reader(people, allowed_currencies())) as calculation:
            calculation.load(ORDERS, orders, lambda done, total: None)
            calculation.finish()
            post = partial(service.post_openings, raises_limits=True)
            return runs.run_balances(
                calculation,
                post,
                people,
                ReconciliationFile(None),
                batch=batch,
                is_dry=False,
                announce=lambda done, total: None,
            )


@pytest.mark.usefixtures("last_is_locked")
@pytest.mark.parametrize("batches", [(3, 3), (3, 1), (1, 2)])
def test_two_imports_at_once_post_each_balance_once(
    database: Database, members: list[Person], old: OldSystem, books: Books, batches: tuple[int, int]
) -> None:
    orders = old.folder / "orders.csv"
    with ThreadPoolExecutor(2) as threads:
        runs_of_it = [threads.submit(import_it, old.app, orders, batch) for batch in batches]
        try:
            wait_until_waiting(database, 2)
        finally:
            books.connection.execute("ROLLBACK")
        reports = [run.result() for run in runs_of_it]
    assert [books.openings(person) for person in members] == [[-100], [-100], [-100]]
    totals = [report.by_currency["EUR"] for report in reports]
    assert sum(each.posted for each in totals) == 3
    assert sum(each.limits_raised for each in totals) == 3
    assert [each.off for each in totals] == [0, 0]
    assert old.run("audit").exit_code == 0


def test_many_imports_at_once_in_batches_of_all_sizes_block_nobody_for_good(
    people: People, old: OldSystem, books: Books
) -> None:
    members = [people.make(eur="member") for _ in range(24)]
    for person in members[::3]:
        people.wallet(person, "eur", balance_minor=50)
    old.orders(*[f"{number},{person.email},1.00,,," for number, person in enumerate(members)])
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda batch: import_it(old.app, old.folder / "orders.csv", batch), [1, 2, 3, 5, 7, 24]))
    assert [books.openings(person) for person in members] == [[-100]] * 24
    assert old.run("audit").exit_code == 0
