"""Effects on a run, or on another tenant, that no revision may have, whatever its file contains."""

import psycopg
import pytest

from tenant_schemas.errors import RevisionRefused, TenantNotFound
from tenant_schemas.migrations.history import History, Migrations
from tenant_schemas.migrations.runner import MigrateOptions, migrate
from tenant_schemas.testing.plugin import Database
from tests.factories.histories import HEAD, add_revision, run

pytestmark = pytest.mark.both_servers

FIRST, SECOND = (f"{int(HEAD) + more:04d}" for more in (1, 2))
ADD = 'op.execute("ALTER TABLE wallets ADD COLUMN note text")'
PYTHON = "import sqlalchemy as sa\n    op.execute('SELECT 1')\n    "


def has_column(database: Database, schema_name: str) -> bool:
    query = """
        SELECT EXISTS (SELECT FROM information_schema.columns
            WHERE table_schema = %s AND table_name = 'wallets' AND column_name = 'note')"""
    return database.as_superuser().execute(query, (schema_name,)).fetchone() == (True,)


@pytest.mark.parametrize("is_atomic", [False, True])
@pytest.mark.parametrize(
    "ends",
    ["op.get_bind().rollback()", "op.get_bind().commit()", 'op.execute("ROLLBACK")'],
)
def test_python_that_ends_its_db_transaction_is_refused_and_nothing_of_it_is_recorded(
    fresh_database: Database, histories: Migrations, ends: str, is_atomic: bool
) -> None:
    """The revision before it is rolled back too."""
    add_revision(histories, ADD)
    add_revision(histories, PYTHON + ends, runs_python=True)
    outcomes = run(fresh_database, histories, is_atomic=is_atomic)
    assert "RevisionRefused" in " ".join(outcome.error or "" for outcome in outcomes.values())
    for slug in ("eur", "km"):
        assert outcomes[slug].after == HEAD
        assert fresh_database.tenant(slug).revision == HEAD
        assert not has_column(fresh_database, f"{slug}_schema")


def test_a_python_revision_that_leaves_the_process_is_a_failure(
    fresh_database: Database, histories: Migrations
) -> None:
    add_revision(histories, "raise SystemExit(0)", runs_python=True)
    outcomes = run(fresh_database, histories, jobs=2)
    assert all("SystemExit" in (outcomes[slug].error or "") for slug in ("eur", "km"))


def test_a_step_that_leaves_the_path_elsewhere_leads_no_other_there(
    fresh_database: Database, histories: Migrations
) -> None:
    add_revision(histories, 'op.execute("SET LOCAL search_path TO eur_schema, pg_temp")')
    add_revision(histories, ADD)
    assert run(fresh_database, histories, slugs=("km",))["km"].after == SECOND
    assert has_column(fresh_database, "km_schema")
    assert not has_column(fresh_database, "eur_schema")


def test_a_history_that_forks_and_merges_is_refused(fresh_database: Database, histories: Migrations) -> None:
    folder = histories.setup_cfg.parent / "migrations" / "tenant"
    for name, before in (("a", f"'{HEAD}'"), ("b", f"'{HEAD}'"), ("c", "('a', 'b')")):
        (folder / f"{name}_x.py").write_text(
            f"revision = '{name}'\ndown_revision = {before}\n\n\ndef upgrade():\n    pass\n"
        )
    with pytest.raises(RevisionRefused, match="does not follow"):
        run(fresh_database, histories)


@pytest.mark.parametrize(
    "upgrade",
    [
        'op.execute("CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql RETURN 1; COMMIT")',
        'op.execute("COPY wallets FROM STDIN")',
        "op.execute('''SELECT '\t' ''')",
    ],
    ids=["hidden commit", "copy from stdin", "tab"],
)
def test_sql_that_can_not_be_replayed_is_refused(fresh_database: Database, histories: Migrations, upgrade: str) -> None:
    add_revision(histories, upgrade)
    outcomes = run(fresh_database, histories)
    assert all("RevisionRefused" in (outcomes[slug].error or "") for slug in ("eur", "km"))


def test_a_comment_at_the_end_swallows_nothing(fresh_database: Database, histories: Migrations) -> None:
    body = 'op.execute("SELECT 1 -- one")\n    ' + ADD
    add_revision(histories, body, checks=("SELECT FROM wallets WHERE false -- none",))
    assert run(fresh_database, histories)["km"].after == FIRST
    assert has_column(fresh_database, "km_schema")


def test_a_fault_of_one_way_is_not_another_tenants(fresh_database: Database, histories: Migrations) -> None:
    """One tenant is upgraded and one downgraded, by a step that PostgreSQL can't even parse."""
    add_revision(histories, ADD)
    add_revision(histories, "pass", 'op.execute("THIS IS NO SQL")')
    run(fresh_database, histories, slugs=("eur",))
    outcomes = run(fresh_database, histories, to=FIRST, jobs=1)
    assert (outcomes["eur"].sqlstate, outcomes["km"].after) == ("42601", FIRST)


def test_a_slip_in_a_name_leaves_shared_alone(fresh_database: Database, histories: Migrations) -> None:
    add_revision(histories, 'op.execute("CREATE TABLE shared.x (id uuid PRIMARY KEY)")', history=History.SHARED)
    with pytest.raises(TenantNotFound):
        run(fresh_database, histories, canaries=("unknown",))
    assert fresh_database.as_superuser().execute("SELECT to_regclass('shared.x')").fetchone() == (None,)


def test_shared_waits_no_longer_than_asked_for(fresh_database: Database, histories: Migrations) -> None:
    add_revision(histories, 'op.execute("ALTER TABLE shared.users ADD COLUMN x int")', history=History.SHARED)
    reader = fresh_database.as_superuser()
    reader.execute("BEGIN")
    reader.execute("SELECT FROM shared.users")
    outcome = run(fresh_database, histories, lock_timeout_ms=100, attempts=2, first_delay_seconds=0.05)["shared"]
    assert (outcome.sqlstate, outcome.attempts) == ("55P03", 2)
    assert outcome.before == outcome.after is not None


def test_a_fault_before_its_end_is_in_the_record_of_an_atomic_run(
    fresh_database: Database, histories: Migrations
) -> None:
    add_revision(histories, ADD)
    fresh_database.as_superuser().execute("ALTER TABLE km_schema.wallets ADD COLUMN note text")
    run(fresh_database, histories, is_atomic=True)
    rows = fresh_database.as_superuser().execute("SELECT slug, status, sqlstate FROM shared.migration_outcomes")
    assert set(rows.fetchall()) == {("km", "failed", "42701"), ("eur", "skipped", None)}


def test_the_lock_may_be_lost_and_the_report_is_not(fresh_database: Database, histories: Migrations) -> None:
    """An administrator is most likely to end an idle session."""
    add_revision(histories, ADD)
    running = migrate(fresh_database.admin_engine(), histories, MigrateOptions(jobs=1))
    outcomes = [next(running)]
    with psycopg.connect(fresh_database.url(), autocommit=True) as superuser:
        superuser.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'idle in transaction' AND query LIKE 'LOCK TABLE%'"
        )
    outcomes += running
    assert [outcome.error for outcome in outcomes] == [None] * 3
