"""A revision that says `concurrently = True` makes its index while the table's writers go on, and can be resumed."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tenant_schemas import registry
from tenant_schemas.errors import RevisionRefused
from tenant_schemas.migrations.concurrent_index import read_concurrent_index
from tenant_schemas.migrations.history import History, Migrations, Outcome
from tenant_schemas.migrations.runner import migrate
from tenant_schemas.schema_diff.compare import drifted_objects
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.histories import HEAD, add_revision, run
from tests.factories.pgbouncer import needs_pgbouncer, running_pgbouncer

pytestmark = pytest.mark.both_servers

INDEX = "wallets_at_idx"
MAKE = f"op.execute('CREATE INDEX CONCURRENTLY {INDEX} ON wallets (last_posted_at)')"
DROP = f"op.execute('DROP INDEX CONCURRENTLY {INDEX}')"
FIRST, SECOND, THIRD = (f"{int(HEAD) + more:04d}" for more in (1, 2, 3))
WRITE = "UPDATE {}.wallets SET last_posted_at = now()"


def indexes(database: Database, name: str = INDEX) -> dict[str, bool]:
    """By schema that has the index: whether it is valid."""
    query = """
        SELECT c.relnamespace::regnamespace::text, i.indisvalid FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
        WHERE c.relname = %s"""
    return dict(database.as_superuser().execute(query, (name,)).fetchall())


def drift(database: Database, histories: Migrations) -> dict[str, list[str]]:
    with database.admin_engine().begin() as connection:
        return drifted_objects(connection, histories, registry.all_tenants(connection))


@contextmanager
def writer(database: Database, schema_name: str) -> Iterator[psycopg.Connection[Any]]:
    """A session with an open db transaction that has written to the tenant's wallets."""
    with psycopg.connect(database.url(), application_name="a long posting") as session:
        session.execute(WRITE.format(schema_name).encode())
        yield session
        session.rollback()


def wait_until_it_waits(database: Database) -> int:
    """Until a session waits for a writer; returns its process id."""
    query = """
        SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ~ '^CREATE INDEX CONCURRENTLY'
            AND wait_event_type = 'Lock'"""
    deadline = monotonic() + 30
    while not (row := database.as_superuser().execute(query).fetchone()):
        assert monotonic() < deadline
        sleep(0.01)
    return int(row[0])


def test_writers_go_on_while_the_index_is_made(fresh_database: Database, histories: Migrations) -> None:
    add_revision(histories, MAKE, concurrently=True)
    with ThreadPoolExecutor(1) as pool:
        with writer(fresh_database, "km_schema"):
            migrating: Future[dict[str, Outcome]] = pool.submit(run, fresh_database, histories, lock_timeout_ms=30_000)
            wait_until_it_waits(fresh_database)
            with psycopg.connect(fresh_database.url(), options="-c lock_timeout=200") as other:
                other.execute(WRITE.format("km_schema").encode())
        outcomes = migrating.result()
    assert {outcome.after for slug, outcome in outcomes.items() if slug != "shared"} == {FIRST}
    assert indexes(fresh_database) == {"eur_schema": True, "km_schema": True}
    assert drift(fresh_database, histories) == {}


def test_a_writer_that_does_not_end_is_named_and_the_tenant_is_left_as_it_was(
    fresh_database: Database, histories: Migrations
) -> None:
    add_revision(histories, MAKE, concurrently=True)
    with writer(fresh_database, "km_schema"):
        outcomes = run(fresh_database, histories, lock_timeout_ms=300, attempts=2, first_delay_seconds=0.05)
    failed = outcomes["km"]
    assert (failed.sqlstate, failed.after, failed.attempts, outcomes["eur"].after) == ("55P03", HEAD, 2, FIRST)
    assert "a long posting" in (failed.blocked_by or "")
    assert f"Revision {FIRST}: CREATE INDEX CONCURRENTLY {INDEX}" in (failed.error or "")
    assert run(fresh_database, histories)["km"].after == FIRST
    assert indexes(fresh_database) == {"eur_schema": True, "km_schema": True}


def test_a_session_that_is_ended_in_the_middle_begins_again(fresh_database: Database, histories: Migrations) -> None:
    add_revision(histories, MAKE, concurrently=True)
    with ThreadPoolExecutor(1) as pool:
        with writer(fresh_database, "km_schema"):
            migrating = pool.submit(run, fresh_database, histories, lock_timeout_ms=30_000)
            pid = wait_until_it_waits(fresh_database)
            assert indexes(fresh_database)["km_schema"] is False
            fresh_database.as_superuser().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        outcomes = migrating.result()
    assert (outcomes["km"].after, outcomes["km"].attempts) == (FIRST, 2)
    assert indexes(fresh_database) == {"eur_schema": True, "km_schema": True}


def test_the_revisions_before_are_kept_and_those_behind_follow(fresh_database: Database, histories: Migrations) -> None:
    """A unique index that the rows refuse leaves no invalid index, which would refuse new rows too."""
    add_revision(histories, 'op.execute("ALTER TABLE credit_policies ADD COLUMN one integer DEFAULT 1")')
    unique = f"op.execute('CREATE UNIQUE INDEX CONCURRENTLY {INDEX} ON credit_policies (one)')"
    add_revision(histories, unique, concurrently=True)
    add_revision(histories, "op.get_bind().exec_driver_sql('SELECT 1')", runs_python=True)
    superuser = fresh_database.as_superuser()
    superuser.execute("DELETE FROM km_schema.credit_policies")
    two = "INSERT INTO km_schema.credit_policies (currency, default_limit_minor) VALUES ('EUR', 0), ('BAM', 0)"
    superuser.execute(two)
    failed = run(fresh_database, histories)["km"]
    assert (failed.sqlstate, failed.after) == ("23505", FIRST)
    assert fresh_database.tenant("km").revision == FIRST
    assert indexes(fresh_database) == {"eur_schema": True}
    superuser.execute("DELETE FROM km_schema.credit_policies WHERE currency = 'BAM'")
    assert run(fresh_database, histories)["km"].after == THIRD
    assert indexes(fresh_database) == {"eur_schema": True, "km_schema": True}
    assert drift(fresh_database, histories) == {}


def test_an_index_that_an_unrecorded_run_has_left_is_made_again(
    fresh_database: Database, histories: Migrations
) -> None:
    """A valid one too: it may be of another definition. And one that is dropped already is no fault."""
    add_revision(histories, MAKE, DROP, concurrently=True)
    fresh_database.as_superuser().execute(f"CREATE INDEX {INDEX} ON km_schema.wallets (held_minor)")
    assert run(fresh_database, histories)["km"].after == FIRST
    assert drift(fresh_database, histories) == {}
    fresh_database.as_superuser().execute(f"DROP INDEX km_schema.{INDEX}")
    assert run(fresh_database, histories, to=HEAD)["km"].after == HEAD
    assert indexes(fresh_database) == {}


def test_an_index_of_another_table_is_not_touched(fresh_database: Database, histories: Migrations) -> None:
    add_revision(histories, MAKE, concurrently=True)
    fresh_database.as_superuser().execute(f"CREATE INDEX {INDEX} ON km_schema.holds (id)")
    outcomes = run(fresh_database, histories)
    assert (outcomes["km"].sqlstate, outcomes["eur"].after) == ("42P07", FIRST)
    assert indexes(fresh_database)["km_schema"] is True


def test_new_tenants_and_atomic_runs_make_it_in_their_db_transaction(
    fresh_database: Database, histories: Migrations
) -> None:
    add_revision(histories, MAKE, concurrently=True)
    make_tenant(fresh_database, histories, "new", {"currency": "EUR"})
    assert run(fresh_database, histories, is_atomic=True)["km"].after == FIRST
    assert indexes(fresh_database) == {"eur_schema": True, "km_schema": True, "new_schema": True}
    assert drift(fresh_database, histories) == {}


def test_shared_gets_its_index_in_the_same_way(fresh_database: Database, histories: Migrations) -> None:
    column = 'op.execute("ALTER TABLE shared.users ADD COLUMN note text")'
    on_users = "op.execute('CREATE INDEX CONCURRENTLY users_note_idx ON shared.users (note)')"
    before = add_revision(histories, column, history=History.SHARED)
    run(fresh_database, histories)
    head = add_revision(histories, on_users, concurrently=True, history=History.SHARED)
    with psycopg.connect(fresh_database.url()) as session:
        session.execute("UPDATE shared.users SET note = 'x'")
        failed = run(fresh_database, histories, lock_timeout_ms=100, attempts=1)["shared"]
        session.rollback()
    assert (failed.sqlstate, failed.after) == ("55P03", before)
    shared = run(fresh_database, histories)["shared"]
    assert (shared.error, shared.after, indexes(fresh_database, "users_note_idx")) == (None, head, {"shared": True})


@needs_pgbouncer
def test_behind_pgbouncer_no_session_gets_settings(
    fresh_database: Database, histories: Migrations, tmp_path: Path
) -> None:
    add_revision(histories, MAKE, concurrently=True)
    direct = fresh_database.admin_engine().url
    folder = tmp_path / "pgbouncer"
    folder.mkdir()
    with running_pgbouncer(folder, fresh_database) as url:
        address = sa.make_url(url)
        engine = sa.create_engine(direct.set(host=address.host, port=address.port), poolclass=sa.NullPool)
        outcomes = {outcome.slug: outcome for outcome in migrate(engine, histories)}
    assert "through PgBouncer" in (outcomes["km"].error or "")
    assert indexes(fresh_database) == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CREATE INDEX a ON b (c)",
        "CREATE INDEX CONCURRENTLY ON b (c)",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS a ON b (c)",
        "CREATE INDEX CONCURRENTLY a ON b (c); ANALYZE b",
        "DROP INDEX CONCURRENTLY a, b",
        "DROP INDEX CONCURRENTLY a CASCADE",
        "REINDEX INDEX CONCURRENTLY a",
    ],
)
def test_anything_but_one_statement_on_one_index_is_refused(text: str) -> None:
    with pytest.raises(RevisionRefused, match="must be one CREATE INDEX CONCURRENTLY"):
        read_concurrent_index("0099", text)


def test_the_plain_form_is_the_same_statement_without_the_word() -> None:
    text = "-- Why.\nCREATE UNIQUE INDEX CONCURRENTLY a ON b (c)\n    WHERE d = 'CONCURRENTLY';"
    index = read_concurrent_index("0099", text)
    assert index.plain_sql == "-- Why.\nCREATE UNIQUE INDEX a ON b (c)\n    WHERE d = 'CONCURRENTLY';"
    assert (index.name, index.table) == ("a", "b")
    with pytest.raises(RevisionRefused):
        read_concurrent_index("0099", text, checks=("SELECT 1",))
