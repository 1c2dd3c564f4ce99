"""Many tenants are migrated together: planned, in order, in waves, recorded; and a failure affects one tenant only."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg import sql

from tenant_schemas.errors import MigratorBusy, RevisionRefused, TenantNotFound
from tenant_schemas.migrations.history import History, Migrations, Outcome
from tenant_schemas.migrations.runner import MigrateOptions, Plan, make_plan, migrate
from tenant_schemas.migrations.runner.migrator_lock import migrator_lock
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.api import Api
from tests.factories.histories import HEAD, add_revision, run
from tests.factories.people import People

pytestmark = pytest.mark.both_servers

SLUGS = ("eur", "km", "one", "two", "three", "four")
BEFORE, FIRST, SECOND, THIRD = (f"{int(HEAD) + more:04d}" for more in range(4))
ADD = 'op.execute("ALTER TABLE wallets ADD COLUMN note text")'
TAKE = 'op.execute("ALTER TABLE wallets DROP COLUMN note")'
HASTE: dict[str, Any] = {"lock_timeout_ms": 150, "attempts": 2, "first_delay_seconds": 0.05}


@pytest.fixture
def fleet(fresh_database: Database, tenancy_migrations: Migrations) -> Database:
    """A database with six tenants at the present head."""
    for slug in SLUGS[2:]:
        make_tenant(fresh_database, tenancy_migrations, slug, {"currency": "EUR"})
    return fresh_database


def revisions(database: Database) -> dict[str, str]:
    """Each tenant's revision; its schema and the registry must agree, and the column must match it."""
    found = {}
    superuser = database.as_superuser()
    for tenant in database.tenants():
        query = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(tenant.schema_name, "alembic_version"))
        assert superuser.execute(query).fetchall() == [(tenant.revision,)]
        assert has_column(superuser, tenant.schema_name) is (tenant.revision >= FIRST)
        found[tenant.slug] = tenant.revision
    return found


def has_column(superuser: psycopg.Connection[Any], schema_name: str) -> bool:
    query = """
        SELECT EXISTS (SELECT FROM information_schema.columns
            WHERE table_schema = %s AND table_name = 'wallets' AND column_name = 'note')"""
    return bool(superuser.execute(query, (schema_name,)).fetchone() == (True,))


def recorded(database: Database) -> dict[str, tuple[Any, ...]]:
    """The newest run and its outcomes."""
    superuser = database.as_superuser()
    (run_id, status) = superuser.execute(
        "SELECT id, status FROM shared.migration_runs ORDER BY started_at DESC LIMIT 1"
    ).fetchall()[0]
    query = "SELECT slug, status, attempts, sqlstate FROM shared.migration_outcomes WHERE run_id = %s"
    return {"run": (status,)} | {slug: tuple(rest) for slug, *rest in superuser.execute(query, (run_id,))}


@pytest.mark.parametrize("jobs", [1, 3])
def test_all_go_up_together_and_down_again(fleet: Database, histories: Migrations, jobs: int) -> None:
    add_revision(histories, ADD, TAKE)
    outcomes = run(fleet, histories, jobs=jobs)
    assert outcomes.pop("shared").error is None
    assert outcomes == {slug: Outcome(f"{slug}_schema", slug, BEFORE, FIRST) for slug in SLUGS}
    assert revisions(fleet) == dict.fromkeys(SLUGS, FIRST)
    assert recorded(fleet) == {"run": ("done",)} | dict.fromkeys(SLUGS, ("done", 1, None))
    back = run(fleet, histories, jobs=jobs, to=BEFORE)
    assert back == {slug: Outcome(f"{slug}_schema", slug, FIRST, BEFORE) for slug in SLUGS}
    assert revisions(fleet) == dict.fromkeys(SLUGS, BEFORE)


def test_shared_goes_down_and_up_alone(fleet: Database, histories: Migrations, tenancy_migrations: Migrations) -> None:
    number = int(tenancy_migrations.head(History.SHARED)) + 1
    add_revision(
        histories,
        'op.execute("CREATE TABLE shared.noted (id uuid PRIMARY KEY)")',
        'op.execute("DROP TABLE shared.noted")',
        history=History.SHARED,
    )
    assert run(fleet, histories)["shared"].after == f"{number:04d}"
    outcomes = run(fleet, histories, shared_to=f"{number - 1:04d}")
    assert list(outcomes) == ["shared"]
    assert (outcomes["shared"].before, outcomes["shared"].after) == (f"{number:04d}", f"{number - 1:04d}")
    assert fleet.as_superuser().execute("SELECT to_regclass('shared.noted')").fetchone() == (None,)


def test_a_run_with_nothing_to_do_writes_nothing(fleet: Database, tenancy_migrations: Migrations) -> None:
    assert {outcome.attempts for slug, outcome in run(fleet, tenancy_migrations).items() if slug != "shared"} == {0}
    assert fleet.as_superuser().execute("SELECT count(*) FROM shared.migration_runs").fetchone() == (0,)


def test_what_must_run_python_runs_in_each_tenant_in_order_with_the_rest(
    fleet: Database, histories: Migrations
) -> None:
    """The second revision uses objects of the first, and the third objects of the second."""
    add_revision(histories, ADD)
    body = """
    import sqlalchemy as sa
    schema_name = op.get_bind().scalar(sa.text("SELECT current_schema()"))
    op.execute(f"CREATE TABLE noted AS SELECT '{schema_name}' AS where_made, count(note) AS notes FROM wallets")
    op.execute("ALTER TABLE noted ADD PRIMARY KEY (where_made)")"""
    add_revision(histories, body, runs_python=True)
    add_revision(histories, "op.execute(\"UPDATE noted SET where_made = where_made || ' then'\")")
    outcomes = run(fleet, histories, jobs=3)
    assert {outcome.after for slug, outcome in outcomes.items() if slug != "shared"} == {THIRD}
    for slug in SLUGS:
        query = sql.SQL("SELECT where_made FROM {}").format(sql.Identifier(f"{slug}_schema", "noted"))
        assert fleet.as_superuser().execute(query).fetchall() == [(f"{slug}_schema then",)]


def test_a_revision_that_looks_without_saying_so_is_refused_before_anything_is_done(
    fleet: Database, histories: Migrations
) -> None:
    add_revision(histories, 'import sqlalchemy as sa\n    assert op.get_bind().scalar(sa.text("SELECT 1")) == 1')
    outcomes = run(fleet, histories)
    assert all("runs_python = True" in (outcomes[slug].error or "") for slug in SLUGS)
    assert revisions(fleet) == dict.fromkeys(SLUGS, BEFORE)


def test_a_revision_that_ends_its_db_transaction_is_refused_before_anything_is_done(
    fleet: Database, histories: Migrations
) -> None:
    add_revision(histories, f'{ADD}\n    op.execute("COMMIT")\n    op.execute("SELECT 1 / 0")')
    outcomes = run(fleet, histories)
    assert all("inside a db transaction" in (outcomes[slug].error or "") for slug in SLUGS)
    assert revisions(fleet) == dict.fromkeys(SLUGS, BEFORE)


def test_one_that_fails_is_alone_and_named_with_its_sqlstate(fleet: Database, histories: Migrations) -> None:
    """In the middle of a message of several tenants."""
    add_revision(histories, ADD)
    fleet.as_superuser().execute("ALTER TABLE one_schema.wallets ADD COLUMN note text")
    outcomes = run(fleet, histories, jobs=1)
    assert (outcomes["one"].sqlstate, outcomes["one"].after) == ("42701", BEFORE)
    assert 'column "note" of relation "wallets" already exists' in (outcomes["one"].error or "")
    others = [slug for slug in SLUGS if slug != "one"]
    assert all(outcomes[slug].after == FIRST and not outcomes[slug].error for slug in others)
    assert recorded(fleet) == {"run": ("failed",), "one": ("failed", 1, "42701")} | {
        slug: ("done", recorded(fleet)[slug][1], None) for slug in others
    }
    fleet.as_superuser().execute("ALTER TABLE one_schema.wallets DROP COLUMN note")
    assert run(fleet, histories)["one"].after == FIRST
    assert revisions(fleet) == dict.fromkeys(SLUGS, FIRST)


def test_a_check_that_finds_something_takes_its_tenant_back(fleet: Database, histories: Migrations) -> None:
    checks = ("SELECT FROM ledger_accounts WHERE current_schema() = 'km_schema'",)
    add_revision(histories, ADD, checks=checks)
    outcomes = run(fleet, histories)
    assert "A check of revision" in (outcomes["km"].error or "")
    assert revisions(fleet) == dict.fromkeys(SLUGS, FIRST) | {"km": BEFORE}


@pytest.fixture
def reader(fleet: Database) -> Iterator[Callable[[], None]]:
    """A session with an open db transaction that has read km's wallets; call it to commit."""
    sitting = fleet.as_tenant("km")
    sitting.execute("BEGIN")
    sitting.execute("SET application_name TO 'a long report'")
    sitting.execute("SELECT FROM wallets")
    yield lambda: sitting.execute("COMMIT") and None
    sitting.close()


def test_a_busy_tenant_fails_alone_and_the_report_names_who_was_there(
    fleet: Database, histories: Migrations, reader: Callable[[], None]
) -> None:
    add_revision(histories, ADD)
    outcomes = run(fleet, histories, **HASTE)
    assert (outcomes["km"].sqlstate, outcomes["km"].attempts) == ("55P03", 2)
    assert "tenant_km" in (outcomes["km"].blocked_by or "")
    assert "a long report" in (outcomes["km"].blocked_by or "")
    assert revisions(fleet) == dict.fromkeys(SLUGS, FIRST) | {"km": BEFORE}
    query = "SELECT blocked_by FROM shared.migration_outcomes WHERE slug = 'km'"
    assert "a long report" in str(fleet.as_superuser().execute(query).fetchall())


def test_a_busy_tenant_is_done_after_the_others_when_its_reader_has_gone(
    fleet: Database, histories: Migrations, reader: Callable[[], None]
) -> None:
    add_revision(histories, ADD)
    outcomes = []
    options = MigrateOptions(**(HASTE | {"attempts": 20}))
    for outcome in migrate(fleet.admin_engine(), histories, options):
        outcomes.append(outcome)
        if len(outcomes) == len(SLUGS):
            reader()
    assert (outcomes[-1].slug, outcomes[-1].after) == ("km", FIRST)
    assert outcomes[-1].attempts > 1


def test_readers_behind_the_migrator_wait_no_longer_than_its_lock_timeout(
    fleet: Database, histories: Migrations, reader: Callable[[], None]
) -> None:
    add_revision(histories, ADD)
    waits, is_over = [], Event()

    def read_on() -> None:
        other = fleet.as_tenant("km")
        while not is_over.is_set():
            began = monotonic()
            other.execute("SELECT FROM wallets")
            waits.append(monotonic() - began)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on)
        run(fleet, histories, lock_timeout_ms=400, attempts=2, first_delay_seconds=0.01)
        is_over.set()
        reading.result()
    assert 0.2 < max(waits) < 2  # They waited, and then continued.


def test_the_service_goes_on_while_its_tenants_are_migrated(
    fleet: Database, histories: Migrations, fresh_app: Flask
) -> None:
    """Every answer is the usual one, before, during and after the run."""
    add_revision(histories, ADD)
    api, person = Api(fresh_app), People(fresh_app).make(eur="member", km="member")
    statuses, is_over = [], Event()

    def look_on() -> None:
        while not is_over.is_set():
            statuses.extend(api.get("/api/wallet", person, tenant).status_code for tenant in ("eur", "km"))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look_on)
        run(fleet, histories)
        run(fleet, histories, to=BEFORE)
        is_over.set()
        looking.result()
    assert set(statuses) == {200}


def test_waves_go_one_after_another_and_stop_at_a_failure(fleet: Database, histories: Migrations) -> None:
    add_revision(histories, ADD)
    fleet.as_superuser().execute("ALTER TABLE eur_schema.wallets ADD COLUMN note text")
    outcomes = run(fleet, histories, canaries=("eur",), share_percent=40)
    assert outcomes["eur"].sqlstate == "42701"
    assert all(outcomes[slug].was_skipped for slug in SLUGS if slug != "eur")
    assert recorded(fleet)["two"] == ("skipped", 0, None)
    fleet.as_superuser().execute("ALTER TABLE eur_schema.wallets DROP COLUMN note")
    plans: list[Plan] = []
    outcomes_ = list(
        migrate(fleet.admin_engine(), histories, MigrateOptions(canaries=("eur",), share_percent=40), plans.append)
    )
    assert [len(wave) for wave in plans[0].waves] == [1, 2, 3]
    order = [outcome.slug for outcome in outcomes_ if outcome.slug]
    assert order[0] == "eur"
    assert set(order[1:3]) == {work.tenant.slug for work in plans[0].waves[1]}
    assert revisions(fleet) == dict.fromkeys(SLUGS, FIRST)


def test_a_failure_budget_stops_also_within_a_wave(fleet: Database, histories: Migrations) -> None:
    add_revision(histories, 'op.execute("SELECT 1 / 0")')
    outcomes = run(fleet, histories, failure_budget=1, jobs=1)
    assert (
        sorted(outcome.was_skipped for slug, outcome in outcomes.items() if slug != "shared")
        == [False] * 2 + [True] * 4
    )


def test_atomic_is_all_or_nothing(fleet: Database, histories: Migrations) -> None:
    add_revision(histories, ADD)
    fleet.as_superuser().execute("ALTER TABLE one_schema.wallets ADD COLUMN note text")
    outcomes = run(fleet, histories, is_atomic=True)
    assert outcomes["one"].sqlstate == "42701"
    assert all(outcomes[slug].was_skipped for slug in SLUGS if slug != "one")
    assert {tenant.revision for tenant in fleet.tenants()} == {BEFORE}
    assert recorded(fleet)["run"] == ("failed",)
    fleet.as_superuser().execute("ALTER TABLE one_schema.wallets DROP COLUMN note")
    assert run(fleet, histories, is_atomic=True)["shared"].error is None
    assert revisions(fleet) == dict.fromkeys(SLUGS, FIRST)
    assert recorded(fleet)["run"] == ("done",)


def test_a_second_migrator_is_told_who_is_at_it_or_waits(fleet: Database, histories: Migrations) -> None:
    add_revision(histories, 'op.execute("SELECT pg_sleep(0.3)")')
    running = migrate(fleet.admin_engine(), histories, MigrateOptions(jobs=1))
    next(running)
    next(running)
    with pytest.raises(MigratorBusy, match=r"@.* process \d+ since"):
        run(fleet, histories)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run, fleet, histories, wait_seconds=30)
        list(running)
        assert {outcome.before for slug, outcome in waiting.result().items() if slug != "shared"} == {FIRST}


def test_a_stale_plan_does_no_step_twice(fleet: Database, histories: Migrations) -> None:
    """Even if the migrator lock is lost, the guard in each tenant's own db transaction works."""
    add_revision(histories, ADD)

    def somebody_else(_: Plan) -> None:
        with fleet.as_superuser() as superuser:
            superuser.execute("UPDATE shared.tenants SET revision = '9999' WHERE slug = 'km'")
            superuser.execute("UPDATE one_schema.alembic_version SET version_num = '9999'")

    outcomes = {
        outcome.slug: outcome for outcome in migrate(fleet.admin_engine(), histories, MigrateOptions(), somebody_else)
    }
    assert "no longer says" in (outcomes["km"].error or "")
    assert "changed by hand" in (outcomes["one"].error or "")
    assert outcomes["two"].after == FIRST
    superuser = fleet.as_superuser()
    assert not has_column(superuser, "km_schema")
    assert not has_column(superuser, "one_schema")


def test_an_interrupted_run_is_recorded_and_the_next_one_finishes(fleet: Database, histories: Migrations) -> None:
    add_revision(histories, ADD + '\n    op.execute("SELECT pg_sleep(0.2)")')
    running = migrate(fleet.admin_engine(), histories, MigrateOptions(jobs=1))
    next(running)
    next(running)
    running.close()
    assert recorded(fleet)["run"] == ("stopped",)
    statuses = {slug: row[0] for slug, row in recorded(fleet).items() if slug != "run"}
    assert {slug: "done" if at == FIRST else "skipped" for slug, at in revisions(fleet).items()} == statuses
    run(fleet, histories)
    assert revisions(fleet) == dict.fromkeys(SLUGS, FIRST)


def test_what_can_not_be_undone_is_refused(fleet: Database, tenancy_migrations: Migrations) -> None:
    outcomes = run(fleet, tenancy_migrations, to="0007")
    assert all("can't be undone" in (outcomes[slug].error or "") for slug in SLUGS)


def test_a_target_or_a_canary_that_nobody_knows_stops_the_run_before_it_begins(
    fleet: Database, tenancy_migrations: Migrations
) -> None:
    with pytest.raises(RevisionRefused, match="not in this history"):
        run(fleet, tenancy_migrations, to="7777")
    with pytest.raises(TenantNotFound, match="unknown"):
        run(fleet, tenancy_migrations, canaries=("unknown",))


@pytest.mark.parametrize("is_atomic", [False, True])
def test_schemas_that_are_newer_than_the_code_are_left_and_are_no_failure(
    fleet: Database, histories: Migrations, tenancy_migrations: Migrations, is_atomic: bool
) -> None:
    """A later release has migrated `shared` and one tenant, and was rolled back. Its code still provisions tenants."""
    shared = add_revision(histories, 'op.execute("SELECT 1")', history=History.SHARED)
    add_revision(histories, ADD)
    run(fleet, histories, slugs=("km",))
    outcomes = run(fleet, tenancy_migrations, is_atomic=is_atomic)
    assert [outcome.error for outcome in outcomes.values()] == [None] * 7
    assert (outcomes["shared"].after, outcomes["km"].after, outcomes["eur"].after) == (shared, FIRST, BEFORE)
    noted = {slug for slug, outcome in outcomes.items() if "is newer than this code" in (outcome.note or "")}
    assert noted == {"shared", "km"}
    assert make_tenant(fleet, tenancy_migrations, "new", {"currency": "EUR"}).revision == BEFORE
    # From an unknown revision there is no way to one that is named.
    assert "not in this history" in (run(fleet, tenancy_migrations, to=BEFORE)["km"].error or "")


def test_a_tenant_at_an_unknown_revision_is_left_and_fails(fleet: Database, tenancy_migrations: Migrations) -> None:
    fleet.as_superuser().execute("UPDATE shared.tenants SET revision = '0007x' WHERE slug = 'km'")
    assert "0007x is not in this history" in (run(fleet, tenancy_migrations)["km"].error or "")


def test_provisioning_one_tenant_stamps_no_others(fleet: Database, histories: Migrations) -> None:
    add_revision(histories, ADD)
    assert make_tenant(fleet, histories, "new", {"currency": "EUR"}).revision == FIRST
    assert revisions(fleet) == dict.fromkeys(SLUGS, BEFORE) | {"new": FIRST}


def test_a_plan_changes_nothing_and_holds_nobody_up(fleet: Database, histories: Migrations) -> None:
    add_revision(histories, ADD)
    with migrator_lock(fleet.admin_engine(), histories.roles), fleet.admin_engine().connect() as connection:
        plan = make_plan(connection, histories, MigrateOptions())
    assert [work.tenant.slug for work in plan.tenant_migrations] == sorted(SLUGS)
    assert revisions(fleet) == dict.fromkeys(SLUGS, BEFORE)
