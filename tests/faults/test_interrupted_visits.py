"""A command that is ended while a tenant's lock keeps it waiting leaves no session behind, and so no lock."""

import signal
from pathlib import Path

import pytest

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.testing.plugin import Database
from tests.factories.locks import held_tenant
from tests.faults.conftest import Program, wait_for

LONG = ("--lock-timeout", "600000")
OTHERS = """
    FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
        AND pid <> pg_backend_pid() AND pid <> %s"""
WAITING = f"SELECT EXISTS (SELECT {OTHERS} AND wait_event_type = 'Lock')"
GONE = f"SELECT NOT EXISTS (SELECT {OTHERS})"
COMMANDS = {
    "backup": ("scripts.backup_tenant", "--all", "--jobs", "2", "--to", "{folder}", *LONG),
    "doctor": ("scripts.doctor", *LONG),
    "drift": ("scripts.migration_status", "--drift", *LONG),
    "audit": ("flask", "--app", "wsgi:app", "wallets", "audit", *LONG),
    "migrate": ("tests.faults.migrator", "{histories}", *LONG),
}


@pytest.mark.parametrize(
    ("command", "number"),
    [*((command, signal.SIGTERM) for command in COMMANDS), ("backup", signal.SIGINT)],
)
def test_an_interrupted_command_ends_its_sessions_while_the_lock_is_still_held(
    fresh_database: Database, histories: Migrations, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    module, *arguments = COMMANDS[command]
    arguments = [each.format(folder=tmp_path, histories=histories.setup_cfg) for each in arguments]
    with held_tenant(fresh_database, "km") as pid:
        program = Program(fresh_database, module, *arguments)
        assert wait_for(fresh_database, WAITING, pid, program=program), program.end().errors
        program.send(number)
        ended = program.end()
        wait_for(fresh_database, GONE, pid)
    assert ended.code == 1, ended.errors
    assert "Traceback" not in ended.errors


def test_the_server_ends_the_session_of_a_killed_command(fresh_database: Database, tmp_path: Path) -> None:
    """It would keep its locks until it gets the one that it waits for."""
    with held_tenant(fresh_database, "km") as pid:
        program = Program(fresh_database, "scripts.backup_tenant", "km", "--to", tmp_path, *LONG)
        wait_for(fresh_database, WAITING, pid)
        program.send(signal.SIGKILL)
        program.end()
        wait_for(fresh_database, GONE, pid)
