"""`scripts.restore_tenant` asks before it replaces a living tenant; after a failure it prints the leftovers."""

import json

import pytest

from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import SLUG, change_proof, world
from tests.factories.script_runner import Run

pytestmark = pytest.mark.both_servers


def test_a_restore_is_asked_for_twice_before_it_replaces_the_living(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    before = world(fresh_database)
    refused = run("restore_tenant", str(bundle.folder), input="km\n")
    assert (refused.exit_code, world(fresh_database)) == (1, before)
    done = run("restore_tenant", str(bundle.folder), input=f"{SLUG}\n")
    assert done.exit_code == 0, done.output
    replaced = fresh_database.tenant(SLUG).schema_name
    again = run("restore_tenant", str(bundle.folder), "--yes", "--json", "--keep-days", "1")
    assert json.loads(again.output)["replacedSchema"] == replaced != f"{SLUG}_schema"
    beside = run("restore_tenant", str(bundle.folder), "--as", "shop2", "--name", "Second")
    assert beside.exit_code == 0, beside.output
    assert fresh_database.tenant("shop2").name == "Second"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--as", "eur"), 1), (("--as", "no slug"), 2), (("--as", "wallet"), 2), (("--name", "x"), 2)],
)
def test_what_can_not_be_restored_is_refused_with_a_reason(
    fresh_database: Database, bundle: Bundle, run: Run, arguments: tuple[str, ...], code: int
) -> None:
    before = world(fresh_database)
    result = run("restore_tenant", str(bundle.folder), *arguments)
    assert (result.exit_code, world(fresh_database)) == (code, before)
    assert result.output
    assert "Traceback" not in result.output


def test_a_restore_that_fails_beside_somebody_who_reads_says_what_is_left(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    before = world(fresh_database)
    change_proof(bundle)
    reader = fresh_database.as_superuser()
    with reader.transaction():
        reader.execute("SELECT FROM shared.users")
        result = run("restore_tenant", str(bundle.folder), "--as", "shop2")
    assert result.exit_code == 1
    assert "The proof differs" in result.output
    assert "Could not drop schema shop2_schema" in result.output
    assert run("drop_retired_schemas").exit_code == 0
    assert world(fresh_database) == before


def test_a_tenant_that_was_renamed_since_goes_back_only_by_its_name_of_today(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    assert run("rename_tenant", SLUG, "store").exit_code == 0
    before = world(fresh_database)
    refused = run("restore_tenant", str(bundle.folder), "--yes")
    assert (refused.exit_code, world(fresh_database)) == (2, before)
    done = run("restore_tenant", str(bundle.folder), input="store\n")
    assert done.exit_code == 0, done.output
    for output in (refused.output, done.output):
        assert "tenant shop of the bundle is now store" in output
