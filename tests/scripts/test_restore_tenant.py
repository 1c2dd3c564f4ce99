"""`scripts.restore_tenant` asks before it replaces a living tenant; after a failure it prints the leftovers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.signature import SIGNATURE_NAME
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import FOREIGN_KEYS, edited, source_of
from tests.factories.bundles import SLUG, Furnished, audit, balance, change_proof, content, post, without_log, world
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


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_bundle_with_a_million_more_of_another_installation_is_never_called_proved(
    fresh_database: Database, furnished: Furnished, run: Run, tmp_path: Path, is_signed: bool
) -> None:
    """Its chains, totals and audit agree, because the other installation posted the million."""
    post(fresh_database, furnished, 100_000_000)
    other = replace(source_of(fresh_database), keys=FOREIGN_KEYS)
    folder = back_up(other, SLUG, BackupOptions(folder=tmp_path)).folder
    if not is_signed:
        (folder / SIGNATURE_NAME).unlink()
    origin = "foreign" if is_signed else "unsigned"
    before = world(fresh_database)
    for arguments in (
        ("verify_backup", str(folder)),
        ("restore_tenant", str(folder), "--yes"),
        ("restore_tenant", str(folder), "--as", "shop2"),
    ):
        refused = run(*arguments)
        assert (refused.exit_code, world(fresh_database)) == (1, before)
        assert f"is {origin}" in refused.output
        assert "--accept-foreign" in refused.output

    verified = run("verify_backup", "--accept-foreign", str(folder))
    assert verified.exit_code == 0, verified.output
    assert "is valid" not in verified.output
    assert f"WARNING: {folder} is {origin}" in verified.stderr
    told = run("verify_backup", "--accept-foreign", "--json", str(folder))
    assert json.loads(told.stdout)[0]["origin"] == origin
    taken = run("restore_tenant", "--accept-foreign", "--as", "shop2", str(folder))
    assert taken.exit_code == 0, taken.output
    assert "verified" not in taken.output
    assert f"WARNING: {folder} is {origin}" in taken.stderr
    told = run("restore_tenant", "--accept-foreign", "--as", "shop3", "--json", str(folder))
    assert json.loads(told.stdout)["origin"] == origin
    assert audit(fresh_database, "shop2") == []
    log = fresh_database.as_tenant("shop2").execute("SELECT after FROM audit_log WHERE action = 'tenant.restore'")
    assert [after["origin"] for (after,) in log] == [origin]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {"currency": "DROP"}}, "currency"),
        ({"settings": {}}, "currency"),
        ({"settings": {"currency": "BAM", "rate_limit": "10"}}, "rate_limit"),
        ({"settings": {"currency": "BAM", "locale": "\x1b[2J"}}, "locale"),
        ({"name": "Shop\u202egnp"}, "display name"),
        ({"name": ""}, "display name"),
        ({"slug": "shop\u202e"}, "not printable"),
        ({"schema_name": "pg_catalog"}, "reserved"),
    ],
)
def test_names_and_settings_in_a_bundle_follow_the_rules_of_the_command_line(
    fresh_database: Database, bundle: Bundle, run: Run, changed: dict[str, Any], said: str
) -> None:
    """Also if this installation signed them."""
    before = world(fresh_database)
    folder = edited(bundle, lambda told: told["tenant"].update(changed))
    result = run("restore_tenant", str(folder), "--as", "shop2")
    assert result.exit_code in {1, 2}
    assert said in result.output
    assert not set(result.output) & set("\x1b\u202e")
    assert world(fresh_database) == before


def test_a_tenant_whose_name_can_not_be_shown_is_restored_under_another_name(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    folder = str(edited(bundle, lambda told: told["tenant"].update(name="a\u202eb")))
    assert run("restore_tenant", folder, "--as", "shop2", "--name", "Shop").exit_code == 0
    assert run("restore_tenant", folder, "--yes").exit_code == 0
    assert fresh_database.tenant("shop2").name == "Shop"


def test_settings_that_this_version_does_not_know_are_left_out(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    folder = edited(bundle, lambda told: told["tenant"]["settings"].update(of_yesterday=1))
    assert run("restore_tenant", str(folder), "--as", "shop2").exit_code == 0
    assert fresh_database.tenant("shop2").settings == {"currency": "BAM"}


def test_a_bundle_of_the_release_before_is_restored_when_it_is_accepted(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    """It has the format 1: no signature, no sizes of unpacked rows, no former members."""

    def old(told: dict[str, Any]) -> None:
        told["format"] = 1
        told["shared"] = [file for file in told["shared"] if file["name"] != "former_members"]
        for file in (*told["tables"], *told["shared"]):
            del file["unpacked_bytes"], file["longest_row"]

    folder = edited(bundle, old)
    (folder / SIGNATURE_NAME).unlink()
    (folder / "shared" / "former_members.copy.gz").unlink()
    assert run("restore_tenant", str(folder), "--yes").exit_code == 1
    done = run("restore_tenant", str(folder), "--yes", "--accept-foreign")
    assert done.exit_code == 0, done.output
    assert audit(fresh_database, SLUG) == []


def test_a_dry_run_and_the_question_show_what_would_change_and_what_stays(
    fresh_database: Database, furnished: Furnished, bundle: Bundle, run: Run
) -> None:
    post(fresh_database, furnished, 1_234)
    superuser = fresh_database.as_superuser()
    superuser.execute('UPDATE shared.tenants SET settings = settings || \'{"locale": "bs"}\' WHERE slug = %s', (SLUG,))
    left = "DELETE FROM shared.memberships WHERE user_id = %s"
    superuser.execute(left, (furnished.admin.user_id,))
    before = world(fresh_database)
    shown = run("restore_tenant", str(bundle.folder), "--dry-run")
    assert shown.exit_code == 0, shown.output
    asked = run("restore_tenant", str(bundle.folder), input="no\n")
    assert asked.exit_code == 1
    for output in (shown.output, asked.output):
        assert "BAM: 1 entries from cash to wallets since then, 12.34 in all, would be gone." in output
        assert "Members stay as they are today: 0 joined since then, 1 left." in output
        assert "Settings stay as they are today: locale bs." in output
        assert "(last change " in output
    told = json.loads(run("restore_tenant", str(bundle.folder), "--dry-run", "--json").stdout)
    (currency,) = told["living"]["currencies"]
    assert float(currency["balance"]) - float(currency["balanceRestored"]) == pytest.approx(12.34)
    rows = told["living"]["rows"]["wallet_transactions"]
    assert rows["now"] == rows["restored"] + 1
    assert world(fresh_database) == before


def test_a_dry_run_beside_the_tenant_checks_the_new_name(fresh_database: Database, bundle: Bundle, run: Run) -> None:
    before = world(fresh_database)
    for slug, code, says in (("shop2", 0, "A new tenant shop2"), ("eur", 1, "exists")):
        shown = run("restore_tenant", str(bundle.folder), "--dry-run", "--as", slug)
        assert (shown.exit_code, says in shown.output) == (code, True), shown.output
    assert world(fresh_database) == before


def test_a_tenant_whose_schema_is_gone_is_restored_though_nothing_can_be_compared(
    fresh_database: Database, bundle: Bundle, run: Run
) -> None:
    fresh_database.as_superuser().execute(f"DROP SCHEMA {SLUG}_schema CASCADE")
    done = run("restore_tenant", str(bundle.folder), input=f"{SLUG}\n")
    assert done.exit_code == 0, done.output
    assert "What would change can't be read" in done.output
    assert audit(fresh_database, SLUG) == []


def test_a_wrong_restore_is_undone_from_the_retired_schema(
    fresh_database: Database, furnished: Furnished, bundle: Bundle, run: Run, tmp_path: Path
) -> None:
    post(fresh_database, furnished, 1_234)
    before, was = content(fresh_database, SLUG), balance(fresh_database, SLUG, furnished.wallet_id)
    assert run("restore_tenant", str(bundle.folder), "--yes").exit_code == 0
    assert balance(fresh_database, SLUG, furnished.wallet_id) == was - 1_234

    (listed,) = json.loads(run("drop_retired_schemas", "--list", "--json").output)
    assert (listed["schemaName"], listed["revision"]) == (f"{SLUG}_schema", fresh_database.tenant(SLUG).revision)
    assert listed["bytes"] > 0
    assert listed["tables"] == len(bundle.manifest.tables) + 1
    kept = run("backup_retired_schema", f"{SLUG}_schema", "--to", str(tmp_path / "kept"))
    assert kept.exit_code == 0, kept.output
    (folder,) = (tmp_path / "kept").iterdir()
    assert "Z-data-" in folder.name
    verified = run("verify_backup", str(folder))
    assert verified.exit_code == 0, verified.output

    dry = run("restore_tenant", "--from-retired", f"{SLUG}_schema", "--dry-run")
    assert "BAM: -1 entries from cash to wallets since then, -12.34 in all" in dry.output, dry.output
    undone = run("restore_tenant", "--from-retired", f"{SLUG}_schema", "--yes")
    assert undone.exit_code == 0, undone.output
    assert without_log(content(fresh_database, SLUG)) == without_log(before)
    assert audit(fresh_database, SLUG) == []
    log = fresh_database.as_tenant(SLUG).execute(
        "SELECT after ->> 'retiredAt' IS NOT NULL FROM audit_log WHERE action = 'tenant.restore' ORDER BY seq DESC"
    )
    assert log.fetchone() == (True,)
    assert run("restore_tenant", "--from-retired", "km_schema", "--yes").exit_code == 1
