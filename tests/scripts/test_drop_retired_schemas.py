"""`scripts.drop_retired_schemas` lists the retired schemas, drops those that are due or named, and lists the rest."""

import json

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.locks import held_table
from tests.factories.retired_schemas import TOMORROW, YESTERDAY, make_retired_schema, noted, schemas
from tests.factories.script_runner import Run

pytestmark = pytest.mark.both_servers


def test_the_script_lists_drops_and_exits_1_when_one_stays(run: Run, fresh_database: Database) -> None:
    assert "No retired schema is due." in run("drop_retired_schemas").output
    make_retired_schema(fresh_database, "km_old", YESTERDAY)
    make_retired_schema(fresh_database, "km_new", TOMORROW)
    listed = run("drop_retired_schemas", "--list", "--json")
    assert [(each["schemaName"], each["isDue"]) for each in json.loads(listed.output)] == [
        ("km_old", True),
        ("km_new", False),
    ]
    with held_table(fresh_database, "km_new.things"):
        old, new = json.loads(run("drop_retired_schemas", "--list", "--json").output)
    assert (old["tables"], old["problem"]) == (1, None)
    assert (new["tables"], new["problem"]) == (None, "canceling statement due to lock timeout")
    assert "km_new" in run("drop_retired_schemas", "--list").output
    assert json.loads(run("drop_retired_schemas", "--json").output) == [{"schemaName": "km_old", "error": None}]
    named = run("drop_retired_schemas", "--now", "km_new", "--now", "eur_schema")
    assert named.exit_code == 1
    assert "no retired schema" in named.output
    assert noted(fresh_database) == []
    assert "eur_schema" in schemas(fresh_database)
