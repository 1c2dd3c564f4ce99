"""A reading request (GET, HEAD, OPTIONS) sends a plain read as one exchange, without BEGIN and COMMIT. Anything else
that it does is in a bound db transaction, as in other requests.

Exchanges with PostgreSQL are counted in libpq's own trace, which needs no quiet machine.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import uuid4

import pytest
import sqlalchemy as sa
from flask import Flask
from psycopg import pq, sql

from tenant_schemas.connections import Connections, Limits
from tenant_schemas.context import SHARED, Binding, bound
from tenant_schemas.errors import BindingChanged
from tenant_schemas.flask import TenantDatabase, bind_request
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.testing.plugin import Database
from tests.factories.messages import sent_by

CODE: sa.ColumnClause[str] = sa.column("code")
ACCOUNTS = sa.table("ledger_accounts", CODE)
READ = sa.select(CODE).select_from(ACCOUNTS).where(CODE == "cash")
USERS = sa.table("users", sa.column("id"), sa.column("email"), sa.column("name"), schema="shared")
SETTINGS = ("search_path", "statement_timeout", "lock_timeout", "TimeZone")

Unit = Callable[[TenantDatabase], Any]


@pytest.fixture(scope="module", params=["own", "shared"])
def logins(request: pytest.FixtureRequest) -> str:
    """The login mode."""
    return str(request.param)


@pytest.fixture
def connections(database: Database, logins: str) -> Iterator[Connections]:
    """One connection, so that each request gets the connection of the previous one."""
    limits = Limits(max_connections=1, wait_seconds=0.5)
    pool_role = database.roles.pool if logins == "shared" else None
    connections = Connections(database.app_url, database.tenant_secret, limits, pool_role=pool_role)
    yield connections
    connections.close()


class Site:
    """A small application of one view, which runs `unit` bound to `side`."""

    def __init__(self, connections: Connections, side: Binding) -> None:
        self.app, self.db = Flask("site"), TenantDatabase()
        self.db.init_tenancy(self.app, connections)
        self.engine: BindingEngine = connections.for_binding(side)
        self.side = side
        self.app.add_url_rule("/", "view", self._view, methods=["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
        self.app.testing = True
        self.unit: Unit = lambda _: None
        self.result: Any = None
        self.status = 200

    def _view(self) -> tuple[str, int]:
        bind_request(self.side)
        self.result = self.unit(self.db)
        return "", self.status

    def request(self, unit: Unit, method: str = "GET", status: int = 200) -> Any:
        self.unit, self.status = unit, status
        assert self.app.test_client().open("/", method=method).status_code == status
        return self.result

    def exchanges(self, unit: Unit, method: str = "GET", status: int = 200) -> list[str]:
        """What each exchange of the request was: BEGIN, COMMIT, ROLLBACK or "statement"."""
        for _ in range(7):  # Until all its statements are prepared.
            self.request(unit, method, status)
        with sent_by(self.engine) as sent:
            self.request(unit, method, status)
        return [name_of(exchange) for exchange in sent]


def name_of(exchange: list[str]) -> str:
    kind, _, text = exchange[-1].partition("\t")
    if kind != "Query":
        return "statement"
    return next(word for word in ("BEGIN", "COMMIT", "ROLLBACK", text) if word in text)


@pytest.fixture
def site(connections: Connections, database: Database) -> Site:
    return Site(connections, database.tenant("eur"))


@pytest.fixture
def own_only(logins: str) -> None:
    if logins == "shared":
        pytest.skip("On a session that tenants share, every statement is in a bound db transaction.")


def read(db: TenantDatabase) -> str:
    return str(db.session.execute(READ).scalar_one())


def test_a_plain_read_is_one_exchange_on_a_session_of_its_own(site: Site, logins: str) -> None:
    framed = {"own": ["statement"], "shared": ["BEGIN", "statement", "COMMIT"]}[logins]
    for method in ("GET", "HEAD", "OPTIONS"):
        assert site.exchanges(read, method) == framed
        assert site.result == "cash"
    for method in ("POST", "PUT", "DELETE"):
        assert site.exchanges(read, method) == ["BEGIN", "statement", "COMMIT"]


def test_outside_requests_a_read_is_in_a_db_transaction(site: Site) -> None:
    with site.app.app_context(), bound(site.side):
        read(site.db)
        site.db.session.commit()
        with sent_by(site.engine) as sent:
            read(site.db)
            site.db.session.commit()
    assert [name_of(exchange) for exchange in sent] == ["BEGIN", "statement", "COMMIT"]


@pytest.mark.usefixtures("own_only")
@pytest.mark.parametrize("status", [200, 404])
def test_several_plain_reads_are_as_many_exchanges_however_the_request_ends(site: Site, status: int) -> None:
    def unit(db: TenantDatabase) -> None:
        for _ in range(3):
            read(db)

    assert site.exchanges(unit, status=status) == ["statement"] * 3


@pytest.mark.usefixtures("own_only")
def test_the_shared_side_reads_in_one_exchange_too(connections: Connections) -> None:
    site = Site(connections, SHARED)
    assert site.exchanges(lambda db: db.session.execute(sa.select(USERS.c.id).limit(1)).all()) == ["statement"]


STATEMENTS: Final[dict[str, Unit]] = {
    "text": lambda db: db.session.execute(sa.text("SELECT 1")).all(),
    "a function": lambda db: db.session.scalar(sa.select(sa.func.pg_backend_pid())),
    "the driver's SQL": lambda db: db.session.connection().exec_driver_sql("SELECT 1").all(),
    "a cursor": lambda db: db.session.connection().connection.cursor().execute("SELECT 1").fetchall(),
    "a stream": lambda db: db.session.execute(READ, execution_options={"yield_per": 10}).all(),
    "a SET": lambda db: db.session.execute(sa.text("SET LOCAL lock_timeout TO 5")),
    "a savepoint": lambda db: db.session.begin_nested(),
}


@pytest.mark.parametrize("case", STATEMENTS)
def test_any_other_statement_of_a_reading_request_is_in_a_bound_db_transaction(site: Site, case: str) -> None:
    """Also after a plain read; and what follows it is in the same db transaction."""

    def unit(db: TenantDatabase) -> tuple[Any, ...]:
        read(db)
        STATEMENTS[case](db)
        read(db)
        names = ", ".join(f"current_setting('{name}')" for name in ("search_path", "statement_timeout"))
        return tuple(db.session.execute(sa.text(f"SELECT {names}")).one())

    exchanges = site.exchanges(unit)
    assert (exchanges.count("BEGIN"), exchanges.count("COMMIT"), exchanges[-1]) == (1, 1, "COMMIT")
    assert exchanges.index("BEGIN") <= 1
    assert site.result == ("eur_schema, pg_temp", "10s")


def was_written(database: Database, email: str) -> bool:
    query = "SELECT count(*) FROM shared.users WHERE email = %s"
    return database.as_superuser().execute(query, (email,)).fetchone() == (1,)


WRITES: Final[dict[str, Callable[[TenantDatabase, list[dict[str, str]]], Any]]] = {
    "an insert": lambda db, rows: db.session.execute(sa.insert(USERS), rows[0]),
    "inserts": lambda db, rows: db.session.execute(sa.insert(USERS), rows),
    "text": lambda db, rows: db.session.execute(
        sa.text("INSERT INTO shared.users (email, name) VALUES (:email, :name)"), rows
    ),
    "a cursor": lambda db, rows: (
        db.session.connection()
        .connection.cursor()
        .execute("INSERT INTO shared.users (email, name) VALUES (%(email)s, %(name)s)", rows[0])
    ),
    "a cursor for many": lambda db, rows: (
        db.session.connection()
        .connection.cursor()
        .executemany("INSERT INTO shared.users (email, name) VALUES (%(email)s, %(name)s)", rows)
    ),
}


@pytest.mark.parametrize("case", WRITES)
@pytest.mark.parametrize(("status", "written"), [(200, True), (404, False)])
def test_a_write_of_a_reading_request_is_committed_or_rolled_back_with_it(
    connections: Connections, database: Database, case: str, status: int, written: bool
) -> None:
    site, emails = Site(connections, SHARED), [f"{uuid4().hex}@example.com" for _ in range(2)]

    def unit(db: TenantDatabase) -> None:
        db.session.execute(sa.select(USERS.c.id).limit(1)).all()
        WRITES[case](db, [{"email": email, "name": "Test Person"} for email in emails])
        db.session.execute(sa.select(USERS.c.id).limit(1)).all()

    site.request(unit, status=status)
    assert was_written(database, emails[0]) is written


def test_a_lock_of_a_reading_request_lasts_until_its_end(connections: Connections, database: Database) -> None:
    site, email = Site(connections, SHARED), f"{uuid4().hex}@example.com"
    other = database.as_superuser()
    other.execute("INSERT INTO shared.users (email, name) VALUES (%s, 'x')", (email,))
    query = "SELECT 1 FROM shared.users WHERE email = %s FOR UPDATE SKIP LOCKED"

    def unit(db: TenantDatabase) -> list[Any]:
        db.session.execute(sa.select(USERS.c.id).where(USERS.c.email == email).with_for_update()).all()
        return other.execute(query, (email,)).fetchall()

    assert site.request(unit) == []
    assert other.execute(query, (email,)).fetchall() == [(1,)]


def test_a_snapshot_of_a_reading_request_is_one_for_all_its_reads(connections: Connections, database: Database) -> None:
    """The view says so in its first statement."""
    site, other = Site(connections, SHARED), database.as_superuser()
    count = sa.select(sa.func.count()).select_from(USERS)

    def unit(db: TenantDatabase) -> tuple[int | None, int | None]:
        db.session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        before = db.session.scalar(count)
        other.execute("INSERT INTO shared.users (email, name) VALUES (%s, 'x')", (f"{uuid4().hex}@example.com",))
        return before, db.session.scalar(count)

    before, after = site.request(unit)
    assert before == after


def test_what_a_cursor_sets_for_the_session_is_not_there_for_the_next(site: Site) -> None:
    look: Any = "SELECT current_setting('lock_timeout')"
    before = site.engine.one_statement(look, ())
    for statement in ("SET lock_timeout TO '77s'", b"SET lock_timeout TO '77s'", sql.SQL("SET lock_timeout TO 77000")):
        site.request(lambda db, query=statement: db.session.connection().connection.cursor().execute(query))
        assert site.engine.one_statement(look, ()) == before


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [200, 404])
def test_what_a_request_sets_for_the_session_is_not_there_for_the_next(
    site: Site, database: Database, setting: str, method: str, status: int
) -> None:
    value = {"search_path": "shared", "TimeZone": "Asia/Kathmandu"}.get(setting, "77s")
    look: Any = f"SELECT current_setting('{setting}'), current_user::text"
    before = site.engine.one_statement(look, ())

    def unit(db: TenantDatabase) -> None:
        read(db)
        db.session.execute(sa.text(f"SET {setting} TO '{value}'"))
        read(db)

    site.request(read, method)
    if setting == "search_path":  # Then the second read finds no table.
        with pytest.raises(sa.exc.ProgrammingError):
            site.request(unit, method, status)
    else:
        site.request(unit, method, status)
    assert site.engine.one_statement(look, ()) == before
    assert site.request(read, "GET") == "cash"


def test_what_one_statement_sets_for_the_session_is_not_there_for_the_next(site: Site) -> None:
    for statement in ("SET search_path TO shared", "RESET search_path", "set session lock_timeout = 77"):
        before = site.engine.one_statement("SELECT current_setting('search_path'), current_setting('lock_timeout')", ())
        site.engine.one_statement(statement, ())
        after = site.engine.one_statement("SELECT current_setting('search_path'), current_setting('lock_timeout')", ())
        assert after == before


def test_a_setting_of_the_db_transaction_keeps_the_connection(site: Site) -> None:
    pid = site.engine.one_statement("SELECT pg_backend_pid()", ())

    def unit(db: TenantDatabase) -> None:
        db.session.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        db.session.execute(sa.text("  set local lock_timeout TO 5"))

    site.request(unit)
    assert site.engine.one_statement("SELECT pg_backend_pid()", ()) == pid


def test_changing_the_tenant_between_two_plain_reads_is_refused(site: Site, database: Database) -> None:
    """No db transaction is open in PostgreSQL, but the session's unit of work is."""
    km = database.tenant("km")

    def unit(db: TenantDatabase) -> None:
        read(db)
        with bound(km), pytest.raises(BindingChanged):
            read(db)
        db.session.commit()
        with bound(km):
            read(db)

    site.request(unit)


def test_a_connection_killed_between_two_plain_reads_is_an_error_once(
    site: Site, database: Database, connections: Connections
) -> None:
    def unit(db: TenantDatabase) -> None:
        read(db)
        pid = db.session.connection().connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        database.as_superuser().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(sa.exc.OperationalError) as raised:
            read(db)
        assert raised.value.connection_invalidated

    site.request(unit, status=500)
    assert site.request(read) == "cash"
    assert connections.open_count == 1


@pytest.mark.parametrize("loss", ["ALTER TABLE eur_schema.probe ALTER COLUMN code TYPE varchar", None])
def test_a_plain_read_whose_prepared_statement_is_stale_is_prepared_anew(
    fresh_database: Database, loss: str | None
) -> None:
    """A migration changed its columns, or its session lost it. No ROLLBACK makes psycopg forget it."""
    superuser = fresh_database.as_superuser()
    superuser.execute("CREATE TABLE eur_schema.probe AS SELECT 'cash' AS code")
    superuser.execute("GRANT SELECT ON eur_schema.probe TO tenant_eur")
    connections = Connections(fresh_database.app_url, fresh_database.tenant_secret, Limits(max_connections=1))
    site = Site(connections, fresh_database.tenant("eur"))

    def unit(db: TenantDatabase) -> str | None:
        return db.session.scalar(sa.select(sa.table("probe", sa.column("code")).c.code))

    for number in range(24):
        if number == 10 and loss:
            superuser.execute(loss)  # type: ignore[arg-type]
        elif number == 10:
            site.engine.one_statement("DISCARD ALL", ())
        assert site.request(unit) == "cash"
    with sent_by(site.engine) as sent:
        site.request(unit)
    assert [[message.split("\t")[0] for message in exchange] for exchange in sent] == [
        ["Bind", "Describe", "Execute", "Sync"]
    ]
    connections.close()


def test_after_a_reading_request_the_next_user_of_its_connection_begins_as_ever(site: Site) -> None:
    """Of the connection whose BEGIN was never sent."""
    site.request(read)
    with site.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT current_setting('search_path')").scalar_one() == "eur_schema, pg_temp"
        status = connection.connection.driver_connection.info.transaction_status  # type: ignore[union-attr]
        assert status is pq.TransactionStatus.INTRANS
