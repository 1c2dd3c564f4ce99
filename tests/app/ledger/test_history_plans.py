"""Reading costs the same at any depth: the number of pages that PostgreSQL touches, not the time.

The plans are generic (force_generic_plan), as a connection caches them: such a plan does not know the wallet.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from psycopg import sql

from app import create_app
from app.api import bounded_scan
from app.api.pagination import PageRequest
from app.ledger.history import Filters, balance_at, list_tenant_transactions, list_transactions, with_people
from app.wallets.service import get_wallet, list_wallets
from tenant_schemas.flask import EXTENSION, connections, tenant_context
from tenant_schemas.testing.plugin import Database, copy_of
from tests.app.statements.conftest import Book, fill
from tests.conftest import settings_for

BEGUN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
MANY_PAGES = 60  # the index entries of 60,000 transactions have several hundred
Read = Callable[[], Any]

# 20,000 deposits of each wallet, one a second from 2020 on; an order has three.
_IN_TURN = b"""
    INSERT INTO eur_schema.wallet_transactions (id, wallet_id, currency, seq, type, amount_minor, balance_after_minor,
        idempotency_key, request_fingerprint, order_id, created_at, hash)
    SELECT gen_random_uuid(), wallet_id, 'EUR', n, 'deposit', 1, n, n::text, '', 'order ' || n / 3,
        timestamptz '2020-01-01Z' + n * interval '1 second', ''
    FROM generate_series(1, 20000) AS moment (n), unnest(%s::uuid[]) wallet_id ORDER BY moment.n"""


_MEMBERS = (
    b"INSERT INTO shared.users (email, name) SELECT n || '@crowd.example', 'Crowd' FROM generate_series(1, 5000) n",
    b"INSERT INTO shared.memberships (tenant_id, user_id, tenant_role, role) SELECT t.id, u.id, t.role_name, 'member'"
    b" FROM shared.users u, shared.tenants t WHERE t.slug = 'eur' AND u.email LIKE '%@crowd.example'",
    b"VACUUM ANALYZE shared.users, shared.memberships",
)


class Planner:
    """A tenant with many members, a wallet of long ago, and three wallets with many later movements in turn."""

    def __init__(self, app: Flask, database: Database) -> None:
        self.app, self.superuser = app, database.as_superuser()
        self.tenant_connection = database.as_tenant("eur")
        self.silent, self.busy = Book(app), Book(app)
        fill(database, self.silent, 300)
        self.superuser.execute("SET session_replication_role = replica")
        self.superuser.execute(_IN_TURN, ([self.busy.wallet_id, Book(app).wallet_id, Book(app).wallet_id],))
        self.superuser.execute(b"VACUUM ANALYZE eur_schema.wallet_transactions")
        for statement in _MEMBERS:
            self.superuser.execute(statement)

    def plan(self, read: Read) -> Any:
        """The executed plan of the last query of `read`."""
        asked: list[tuple[str, dict[str, Any]]] = []
        with self.app.app_context(), tenant_context("eur") as tenant:

            def note(_: Any, __: Any, statement: str, parameters: dict[str, Any], *___: Any) -> None:
                asked.append((statement, parameters))

            engine = connections().engine(tenant)
            sa.event.listen(engine, "before_cursor_execute", note)
            read()
            sa.event.remove(engine, "before_cursor_execute", note)
        statement, parameters = asked[-1]
        for number, name in enumerate(parameters, 1):
            statement = re.sub(rf"%\({name}\)s", f"${number}", statement)
        run = self.tenant_connection.execute
        run("SET plan_cache_mode TO force_generic_plan")
        run(f"PREPARE reading AS {statement}".encode(), prepare=False)
        values = sql.SQL(", ").join(map(sql.Literal, parameters.values()))
        told = run(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE reading({})").format(values))
        (found,) = told.fetchone() or ("",)
        run("DEALLOCATE reading")
        return (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]

    def pages(self, read: Read) -> int:
        plan = self.plan(read)
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.fixture(scope="module")
def planner(template: Database) -> Iterator[Planner]:
    with copy_of(template) as database:
        app = create_app(settings_for(database))
        yield Planner(app, database)
        app.extensions[EXTENSION].close()


def own_list(book: Book, **told: Any) -> Read:
    after = told.pop("after", None)
    return lambda: list_transactions(book.wallet_id, PageRequest(after, 50), Filters(**told))


def tenants_list(**told: Any) -> Read:
    after = told.pop("after", None)
    return lambda: list_tenant_transactions(PageRequest(after, 50), Filters(**told))


def indexes_of(plan: Any) -> set[str]:
    found = {plan["Index Name"]} if "Index Name" in plan else set()
    assert plan["Node Type"] != "Seq Scan"
    return found.union(*(indexes_of(inner) for inner in plan.get("Plans", ())))


WINDOWS = ({}, {"start": BEGUN}, {"end": END}, {"start": BEGUN, "end": END}, {"type": "deposit"})


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("after", [None, 250, 60])
def test_a_page_of_a_wallet_touches_that_page(planner: Planner, window: Any, after: int | None) -> None:
    for book in (planner.silent, planner.busy):
        told = {"after": after and [after], **window}
        assert planner.pages(own_list(book, **told)) < MANY_PAGES


@pytest.mark.parametrize("second", [300, 5_000])
def test_a_period_that_ended_long_ago_is_found_at_once(planner: Planner, second: int) -> None:
    end = BEGUN + timedelta(seconds=second)
    for book in (planner.silent, planner.busy):
        assert planner.pages(own_list(book, end=end)) < MANY_PAGES


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("second", [None, 15_000, 600])
def test_a_page_of_the_tenants_list_touches_that_page(planner: Planner, window: Any, second: int | None) -> None:
    after = None
    if second is not None:
        after = [(BEGUN + timedelta(seconds=second)).isoformat(), str(planner.busy.wallet_id), second]
    assert planner.pages(tenants_list(after=after, **window)) < MANY_PAGES


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_list_by_order_is_read_from_the_index_of_orders(planner: Planner, window: Any) -> None:
    for read in (own_list(planner.busy, order_id="order 7", **window), tenants_list(order_id="order 7", **window)):
        plan = planner.plan(read)
        assert "wallet_transactions_order_id_idx" in indexes_of(plan)
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < MANY_PAGES


@pytest.mark.parametrize("at", [None, END, BEGUN, BEGUN + timedelta(seconds=200)])
def test_the_balance_at_a_moment_is_one_look_into_one_index(planner: Planner, at: datetime | None) -> None:
    for book in (planner.silent, planner.busy):
        plan = planner.plan(lambda: balance_at(get_wallet(book.wallet_id), at))  # noqa: B023
        assert indexes_of(plan) == {"wallet_transactions_wallet_id_created_at_idx"}
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 10


@pytest.mark.parametrize("told", [{"text": "nothing"}, {"least_minor": 9}, {"reference": "nothing"}], ids=str)
def test_a_filter_without_an_index_looks_at_a_bounded_number_of_rows(
    planner: Planner, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    monkeypatch.setattr(bounded_scan, "MAX_SCANNED", 200)
    for read in (own_list(planner.busy, **told), tenants_list(**told)):
        assert planner.pages(read) < MANY_PAGES


def test_the_names_of_a_page_are_read_without_the_whole_directory(planner: Planner) -> None:
    """The last query of each is that for the members."""
    for read in (
        lambda: with_people(list_tenant_transactions(PageRequest(None, 50), Filters())),
        lambda: list_wallets(after=None, limit=51),
    ):
        assert planner.pages(read) < MANY_PAGES
