"""The migrator is killed while it makes an index outside a db transaction: the next run makes it again."""

import signal
from pathlib import Path

import psycopg

from tenant_schemas import registry
from tenant_schemas.migrations.runner import migrate
from tenant_schemas.schema_diff.compare import drifted_objects
from tenant_schemas.testing.plugin import Database
from tests.factories.histories import HEAD, add_revision, copied_histories
from tests.faults.conftest import SLUGS, TENANTS, Program, wait_for

INDEX = "wallets_at_idx"
MAKE = f"op.execute('CREATE INDEX CONCURRENTLY {INDEX} ON wallets (last_posted_at)')"
INVALID = "SELECT count(*) = 1 FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid"
ENDED = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND usename = 'wallet_migrator'"
VALID = """
    SELECT count(*) = %s FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relname = %s AND i.indisvalid"""


def test_a_killed_migrator_leaves_an_invalid_index_and_the_next_run_makes_it_again(
    fleet: Database, tmp_path: Path
) -> None:
    histories, slug = copied_histories(tmp_path), SLUGS[0]
    head, schema_name = add_revision(histories, MAKE, concurrently=True), f"{SLUGS[0]}_schema"
    with psycopg.connect(fleet.url()) as posting:
        posting.execute(f"UPDATE {schema_name}.wallets SET last_posted_at = now()".encode())
        program = Program(fleet, "tests.faults.migrator", histories.setup_cfg, "--lock-timeout", "60000")
        wait_for(fleet, INVALID, f"{schema_name}.{INDEX}", program=program)
        program.send(signal.SIGKILL)
        program.end()
        wait_for(fleet, ENDED)
        assert fleet.tenant(slug).revision == HEAD
        assert wait_for(fleet, INVALID, f"{schema_name}.{INDEX}")
    outcomes = [outcome for outcome in migrate(fleet.admin_engine(), histories) if outcome.slug]
    assert {(outcome.after, outcome.error) for outcome in outcomes} == {(head, None)}
    assert wait_for(fleet, VALID, TENANTS, INDEX)
    with fleet.admin_engine().begin() as connection:
        assert drifted_objects(connection, histories, registry.all_tenants(connection)) == {}
