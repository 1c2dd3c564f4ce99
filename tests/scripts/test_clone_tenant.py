"""`scripts.clone_tenant` makes a clone and prints its contents."""

import json

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import (
    SLUG,
    Furnished,
)
from tests.factories.script_runner import Run

pytestmark = pytest.mark.both_servers


def test_the_script_makes_a_clone_and_says_so(fresh_database: Database, furnished: Furnished, run: Run) -> None:
    assert run("prover", "--once", "--tenant", SLUG).exit_code == 0
    done = run("clone_tenant", SLUG, "staging", "--name", "For tests", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["people"] == 2
    assert fresh_database.tenant("staging").name == "For tests"
    proven = run("prover", "--once", "--tenant", "staging", "--tenant", SLUG, "--json")
    assert [row["findings"] for row in json.loads(proven.output)] == [0, 0], "a clone's chains are proven anew"
    again = run("clone_tenant", SLUG, "staging")
    assert (again.exit_code, "staging" in again.output) == (1, True)
