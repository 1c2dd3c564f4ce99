"""`scripts.rename_tenant` renames a tenant and writes it into the tenant's log, or refuses with a reason."""

import json
from typing import Any

import psycopg
import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.script_runner import Run
from tests.factories.tenants import everything

pytestmark = [pytest.mark.both_servers, pytest.mark.usefixtures("mark")]


def test_the_script_renames_and_writes_it_into_the_tenants_log(run: Run, fresh_database: Database) -> None:
    done = run("rename_tenant", "mark", "bam", "--schema-name", "bam_schema", "--name", "Marks", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["schemaName"] == "bam_schema"
    log = fresh_database.as_tenant("bam").execute("SELECT action, before ->> 'slug', after ->> 'slug' FROM audit_log")
    assert log.fetchall() == [("tenant.rename", "mark", "bam")]
    url = run("database_url", "--tenant", "bam").output.strip()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_schema()::text").fetchone() == ("bam_schema",)
    told = run("rename_tenant", "bam", "mark").output
    assert "mark" in told
    assert "bam_schema" in told


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("unknown", "bam"), 2),
        (("mark", "wallet"), 2),
        (("mark", "bam", "--schema-name", "pg_x"), 2),
        (("mark",), 2),
        (("mark", "km"), 1),
        (("mark", "mark"), 1),
    ],
)
def test_the_script_refuses_with_a_reason(run: Run, fresh_database: Database, arguments: Any, code: int) -> None:
    before = everything(fresh_database)
    done = run("rename_tenant", *arguments)
    assert done.exit_code == code
    assert done.output
    assert "Traceback" not in done.output
    assert everything(fresh_database) == before
