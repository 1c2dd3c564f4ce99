"""current.sql has the objects of the histories at head; a stale file is reported, and no command takes it for a
revision.
"""

import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.tenancy import MIGRATIONS
from scripts import check_migrations, write_current_sql
from scripts.support import migration_review, scratch_installation
from scripts.support.current_sql.files import current_path, current_sql, stale_files
from tenant_schemas.migrations.history import History, Migrations
from tests.factories.histories import add_revision, copied_histories

# Comments of the revisions that current.sql lacks: they explain replaced bodies and written rows.
GONE = {
    "-- The head is made after the triggers: making them waited for all writers, so who wrote without them has "
    "committed. A",
    "-- movement is never earlier than the one before, so whatever the clock did, none without an event is from then "
    "on.",
    "-- squawk-ignore constraint-missing-not-valid -- The table is small: a tenant has a few keys.",
    "-- Open the member's wallet, or return the one there is; `opened` tells which.",
    "-- Open the member's wallet with the limit that the policy gives, or return the one there is; `opened` tells "
    "which.",
    "-- Open a wallet in the currency for each of these users that has none, with the limit that the policy gives. "
    "Users that",
    "-- are not the tenant's members are left out. Returns how many were opened.",
    "-- The one writer of money. It locks the wallet's row, answers a repeated key with the first result, checks, and "
    "writes",
    "-- the transaction, its ledger entry and the balance: all or, with an error, nothing.",
    "-- means all that is left of the payment.",
    "-- whole request from others: an item whose key was used by another one refuses everything, in both ways.",
    "-- The usual movement costs three statements. Whatever does not allow one leads to wallet_not_posted_v1, which "
    "says why.",
    "-- Superseded by wallet_post_v3. What it answers is the movement without its hash and its fingerprint, which no "
    "release",
    "-- The one writer of money, of many movements: what wallet_post_v3 does for one, by the same rules. p_items is an "
    "array",
    "-- registry still is the version that the service knows. Else as wallet_post_v3. The lock comes first, so that "
    "the",
    "-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid, disallowed-unique-constraint",
    "-- The functions look for a caller's key under the wallet's lock; this is the last word about all but API keys, "
    "which it",
    "-- tells apart from each other.",
    "-- The entries of before, in their order, become the chain's beginning.",
    "-- The one writer of money, of one movement. It locks the wallet's row, answers a repeated key with the first "
    "result,",
    "-- checks, and writes the transaction, its ledger entry and the balance: all or, with an error, nothing.",
    "-- The one writer of money, of many movements: what wallet_post_v2 does for one, by the same rules. p_items is an "
    "array",
    "-- The audit of 0007, and the audit log's own chain: the first entry that does not hold. No rows means all is "
    "sound.",
    "-- The new CHECK reads the whole ledger, about a second for a million movements.",
    "-- squawk-ignore ban-drop-column",
    "-- Those who were forgotten before this revision.",
    "-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid",
    "-- squawk-ignore-file constraint-missing-not-valid",
}


@pytest.fixture
def histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Migrations:
    """A copy of the histories; the scripts use the copy."""
    copied = copied_histories(tmp_path)
    for module in (check_migrations, migration_review, scratch_installation, write_current_sql):
        monkeypatch.setattr(module, "MIGRATIONS", copied)
    return copied


def write(*options: str) -> Result:
    return CliRunner().invoke(write_current_sql.main, options)


def test_the_files_are_current() -> None:
    assert stale_files(MIGRATIONS) == {}


@pytest.mark.parametrize("history", History)
def test_the_head_says_what_the_file_is(history: History) -> None:
    head = current_path(MIGRATIONS, history).read_text(encoding="utf-8").partition("\n\n")[0]
    assert head.startswith(f"-- The {history.name.lower()} history at revision {MIGRATIONS.head(history)}:")
    for words in ("GENERATED", "`python -m scripts.write_current_sql`", "Do not edit", "Only `make check` runs"):
        assert words in head


@pytest.mark.parametrize("history", History)
def test_no_comment_of_the_revisions_is_lost(history: History) -> None:
    text = current_sql(MIGRATIONS, history)
    for step in MIGRATIONS.steps(history, None):
        comments = {comment.rstrip() for comment in re.findall("--.*", step.sql) if "Frozen once merged" not in comment}
        assert {comment for comment in comments if comment not in text} <= GONE


def test_each_object_stands_once_and_the_living_functions_above_the_superseded() -> None:
    text = current_sql(MIGRATIONS, History.TENANT)
    made = re.findall(r"^CREATE (?:UNIQUE )?(\w+ \w+)", text, re.MULTILINE)
    assert len(made) == len(set(made))
    assert {"TABLE wallets", "VIEW trial_balance", "FUNCTION wallet_post_v4", "FUNCTION wallet_post_v1"} <= {*made}
    living, superseded = text.split("-- Superseded functions")
    assert "FUNCTION wallet_post_v4" in living
    assert "FUNCTION wallet_post_v2" in living, "order_place_v1 calls it"
    assert re.findall(r"^CREATE FUNCTION (\w+)", superseded, re.MULTILINE) == [
        *("wallet_open_v1", "wallet_post_v1", "wallet_configure_v1", "ledger_audit_v4", "ledger_audit_v1"),
        "movement_apply_v1",
        *("hold_authorise_v1", "hold_capture_v1", "order_cancel_v1", "wallet_open_v2", "wallet_configure_v2"),
        *("credit_policy_set_v1", "wallet_post_many_v1", "wallets_open_missing_v1"),
        *("openings_post_v1", "ledger_audit_v2", "audit_chain_v1", "audit_posted_v1", "ledger_audit_v3"),
        *("movement_is_sound_v1", "wallet_not_posted_v1", "wallet_post_v3", "wallet_post_many_v2", "wallet_pay_v1"),
        "document_claim_v1",
        *("audit_refusals_end_v1", "audit_refused_v1", "webhook_replay_v1", "webhook_claim_v1", "webhook_settle_v1"),
    ]


def test_the_tenants_file_names_no_schema_but_shared_and_no_tenant() -> None:
    text = current_sql(MIGRATIONS, History.TENANT)
    assert "tenant_role text := current_setting('tenant_schemas.tenant_role');" in text
    assert violations(text) == []


def violations(text: str) -> list[str]:
    return [violation.rule for violation in migration_review.violations_of(text) if "schema" in violation.rule]


def test_a_stale_file_is_told_with_its_path_and_the_command_and_then_written(histories: Migrations) -> None:
    assert write("--check").exit_code == 0
    path, other = (current_path(histories, history) for history in (History.TENANT, History.SHARED))
    add_revision(histories, "op.execute('ALTER TABLE wallets ADD COLUMN nickname text')")
    before = path.read_text(encoding="utf-8")
    checked = write("--check")
    assert (checked.exit_code, checked.output.splitlines()) == (
        1,
        [f"{path} is stale: run `python -m scripts.write_current_sql`."],
    )
    assert path.read_text(encoding="utf-8") == before
    other.unlink()
    assert {line.split()[0] for line in write("--check").output.splitlines()} == {str(path), str(other)}
    assert {*write().output.splitlines()} == {str(path), str(other)}
    assert "    nickname " in path.read_text(encoding="utf-8")
    assert other.read_text(encoding="utf-8") == current_path(MIGRATIONS, History.SHARED).read_text(encoding="utf-8")
    assert (write("--check").exit_code, write().output) == (0, "")


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_a_statement_that_can_not_be_folded_is_told(histories: Migrations, options: tuple[str, ...]) -> None:
    number = add_revision(histories, "op.execute('ALTER TABLE wallets RENAME COLUMN version TO edition')")
    done = write(*options)
    assert done.exit_code == 1
    assert f"Revision {number}: current.sql can't be generated" in done.output
    assert "    ALTER TABLE wallets RENAME COLUMN version TO edition\n" in done.output


def test_the_check_refuses_a_stale_file_and_objects_that_python_makes(histories: Migrations) -> None:
    path = current_path(histories, History.SHARED)
    path.write_text(path.read_text(encoding="utf-8") + "-- By hand.\n", encoding="utf-8")
    add_revision(histories, "op.execute('CREATE VIEW made_in_python AS SELECT 1 AS one')", runs_python=True)
    done = CliRunner().invoke(check_migrations.main)
    assert done.exit_code == 1
    assert f"{path} is stale: run `python -m scripts.write_current_sql`.\n" in done.output
    tenants = current_path(histories, History.TENANT)
    assert f"{tenants} is stale" in done.output
    assert f"{tenants}: relation made_in_python: only the revisions make it.\n" in done.output
    assert done.output.endswith("Migrations and models agree.\nMigrations and current.sql differ.\n")


def test_nothing_takes_the_file_for_a_revision(histories: Migrations) -> None:
    for history in History:
        path = current_path(histories, history)
        path.write_text("\tCOMMIT; DROP TABLE wallets;\n", encoding="utf-8")
        shutil.copy(path, path.with_name("9999_later.sql"))
        assert histories.head(history) == MIGRATIONS.head(history)
        texts = [[step.sql for step in each.steps(history, None)] for each in (histories, MIGRATIONS)]
        assert texts[0] == texts[1]
    assert migration_review.review_histories() == []
