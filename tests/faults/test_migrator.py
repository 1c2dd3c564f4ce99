"""The migrator is killed in the middle of its work: no tenant is half migrated, the record is true, and the next run
finishes.
"""

import signal
from random import Random
from time import sleep

import psycopg

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.migrations.runner import migrate
from tenant_schemas.testing.plugin import Database
from tests.faults.conftest import TENANTS, Program, wait_for
from tests.faults.probes import AFTER, WHOLE_AFTER, State, states
from tests.faults.server import KILL_SIGNALS, KillableServer

LAST_RUN = "SELECT id FROM shared.migration_runs ORDER BY started_at DESC LIMIT 1"
DONE = f"SELECT count(*) >= %s FROM shared.migration_outcomes WHERE status = 'done' AND run_id = ({LAST_RUN})"


def start(fleet: Database, histories: Migrations, *options: str) -> Program:
    return Program(fleet, "tests.faults.migrator", histories.setup_cfg, "--jobs", "3", "--json", *options)


def wait_for_a_moment(fleet: Database, program: Program, moments: Random) -> None:
    """Until it has migrated some tenants, and then a random time more."""
    wait_for(fleet, "SELECT count(*) = 1 FROM shared.migration_runs")
    wait_for(fleet, DONE, moments.randrange(TENANTS // 2), program=program)
    sleep(moments.random() * 0.05)


def half_migrated(fleet: Database) -> dict[str, State]:
    """The tenants that are neither at the old revision nor at the new one."""
    return {slug: state for slug, state in states(fleet).items() if not state.is_whole}


def last_run(fleet: Database) -> tuple[str, dict[str, str]]:
    """The recorded status of the last run, and of each tenant in it."""
    with psycopg.connect(fleet.url()) as superuser:
        outcomes = superuser.execute(
            "SELECT r.status, o.slug, o.status FROM shared.migration_runs r"
            f" JOIN shared.migration_outcomes o ON o.run_id = r.id WHERE r.id = ({LAST_RUN})".encode()
        ).fetchall()
    ((status,),) = {(run,) for run, _, _ in outcomes}
    return status, {slug: outcome for _, slug, outcome in outcomes}


def assert_record_is_true(fleet: Database) -> None:
    """A tenant of the last run is recorded as done if, and only if, it is at head."""
    _, outcomes = last_run(fleet)
    found = states(fleet)
    assert {slug for slug, status in outcomes.items() if status == "done"} == {
        slug for slug in outcomes if found[slug] == WHOLE_AFTER
    }


def assert_next_run_finishes(fleet: Database, histories: Migrations) -> None:
    outcomes = list(migrate(fleet.admin_engine(), histories))
    assert {(outcome.after, outcome.error) for outcome in outcomes if outcome.slug} == {(AFTER, None)}
    assert set(states(fleet).values()) == {WHOLE_AFTER}


def wait_until_idle(fleet: Database) -> None:
    """A backend whose client was killed completes the statements already sent to it."""
    wait_for(
        fleet,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND usename = 'wallet_migrator'",
    )


def test_a_killed_migrator_leaves_no_half(fleet: Database, either_histories: Migrations, moments: Random) -> None:
    """Its record says `running` until the next run corrects it."""
    program = start(fleet, either_histories)
    wait_for_a_moment(fleet, program, moments)
    program.send(signal.SIGKILL)
    program.end()
    assert half_migrated(fleet) == {}
    wait_until_idle(fleet)
    assert half_migrated(fleet) == {}
    assert_record_is_true(fleet)
    status, _ = last_run(fleet)
    assert_next_run_finishes(fleet, either_histories)
    with psycopg.connect(fleet.url()) as superuser:
        found_out = superuser.execute("SELECT status FROM shared.migration_runs ORDER BY started_at").fetchone()
    assert (status, found_out) in {("running", ("killed",)), ("done", ("done",))}  # It may have come too late.


def test_a_run_that_was_killed_before_it_wrote_its_end_is_found_out(fleet: Database, histories: Migrations) -> None:
    """Even by a run that has no tenant to migrate."""
    assert_next_run_finishes(fleet, histories)
    with fleet.as_superuser() as superuser:
        superuser.execute("UPDATE shared.migration_runs SET status = 'running', finished_at = NULL")
    assert_next_run_finishes(fleet, histories)
    assert last_run(fleet)[0] == "killed"


def test_an_interrupted_migrator_undoes_what_it_was_at_and_says_so(
    fleet: Database, either_histories: Migrations, moments: Random
) -> None:
    """Ctrl-C: the report names all migrated tenants, exit code 1."""
    program = start(fleet, either_histories)
    wait_for_a_moment(fleet, program, moments)
    program.send(signal.SIGINT)
    ended = program.end()
    assert "Traceback" not in ended.errors, ended
    assert half_migrated(fleet) == {}
    assert_record_is_true(fleet)
    status, outcomes = last_run(fleet)
    assert (ended.code, status) in {(1, "stopped"), (0, "done")}, ended  # It may have come too late.
    assert set(outcomes.values()) <= ({"done"} if status == "done" else {"done", "skipped"})
    told = {outcome["slug"] for outcome in ended.told if outcome["after"] == AFTER}
    assert told <= {slug for slug, outcome in outcomes.items() if outcome == "done"}
    assert_next_run_finishes(fleet, either_histories)


def test_a_worker_whose_connection_is_ended_goes_on(
    fleet: Database, either_histories: Migrations, moments: Random
) -> None:
    """An administrator ends the connection: no tenant fails, because the worker tries it again."""
    program = start(fleet, either_histories)
    wait_for_a_moment(fleet, program, moments)
    with psycopg.connect(fleet.url(), autocommit=True) as superuser:
        ended = superuser.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE state = 'active'"
            " AND usename = 'wallet_migrator' AND datname = current_database() AND query ~ 'second_probe' LIMIT 1) a"
        ).fetchone()
    told = program.end()
    assert told.code == 0, (ended, told)
    assert set(states(fleet).values()) == {WHOLE_AFTER}
    assert_record_is_true(fleet)


def test_a_worker_whose_backend_is_killed_leaves_no_half(
    server: KillableServer, fleet: Database, histories: Migrations, moments: Random
) -> None:
    """kill -9 of one backend: PostgreSQL drops all connections and recovers. The run may end; the next run finishes."""
    program = start(fleet, histories)
    wait_for_a_moment(fleet, program, moments)
    server.kill_backend("wallet_migrator")
    ended = program.end()
    assert ended.code in {0, 1}, ended
    assert "Traceback" not in ended.errors, ended
    server.restart()
    assert half_migrated(fleet) == {}
    assert_record_is_true(fleet)
    assert_next_run_finishes(fleet, histories)


def test_a_server_that_goes_down_leaves_no_half(
    server: KillableServer, fleet: Database, histories: Migrations, moments: Random
) -> None:
    """`pg_ctl stop -m immediate`, and kill -9 of the postmaster: a lost commit is lost as a whole."""
    program = start(fleet, histories)
    wait_for_a_moment(fleet, program, moments)
    server.kill(moments.choice(KILL_SIGNALS))
    ended = program.end()
    server.restart()
    assert ended.code == 1, ended
    assert "Traceback" not in ended.errors, ended
    assert half_migrated(fleet) == {}
    assert_record_is_true(fleet)
    assert_next_run_finishes(fleet, histories)
