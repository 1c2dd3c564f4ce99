"""A draft that is unsafe is not kept, and `make check` reads the revisions that are not frozen."""

import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from app.tenancy import MIGRATIONS
from app.wallets.models import Wallet
from scripts import check_migrations, make_migration
from scripts.support import migration_review, scratch_installation
from scripts.support.current_sql.files import current_path, stale_files
from tenant_schemas.migrations.history import History, Migrations
from tests.factories.histories import HEAD, add_revision, copied_histories

NEXT = f"{int(HEAD) + 1:04d}"


@pytest.fixture
def histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Migrations:
    """A copy of the histories, which the scripts take for the real ones."""
    copied = copied_histories(tmp_path)
    for module in (check_migrations, make_migration, migration_review, scratch_installation):
        monkeypatch.setattr(module, "MIGRATIONS", copied)
    return copied


def draft(*options: str) -> Result:
    return CliRunner().invoke(make_migration.main, ["tenant", "Try it", *options])


def drafts(histories: Migrations) -> list[str]:
    return [path.name for path in (histories.setup_cfg.parent / "migrations" / "tenant").glob("*_try_it.py")]


def violations(sql: str) -> list[tuple[str, str]]:
    return [(violation.rule, violation.statement) for violation in migration_review.review({"it": sql})]


def test_a_safe_draft_is_kept(histories: Migrations, request: pytest.FixtureRequest) -> None:
    models = Wallet.metadata
    table = sa.Table("drafted", models, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("note", sa.Text))
    request.addfinalizer(lambda: models.remove(table))
    done = draft()
    assert done.exit_code == 0, done.output
    assert drafts(histories) == [f"{NEXT}_try_it.py"]
    assert done.output.strip().endswith(f"{NEXT}_try_it.py")
    assert migration_review.review_histories() == []
    current = current_path(histories, History.TENANT)
    assert str(current) in done.output.splitlines()
    assert "CREATE TABLE drafted (" in current.read_text(encoding="utf-8")
    assert stale_files(histories) == {}


def test_a_draft_that_drops_is_not_kept_and_what_it_drops_is_named(histories: Migrations) -> None:
    """The history has made what the models don't know."""
    add_revision(
        histories, "op.execute('CREATE TABLE forgotten (id uuid PRIMARY KEY); ALTER TABLE wallets ADD older text')"
    )
    done = draft()
    assert done.exit_code == 1
    assert "ban-drop-table: Dropping a table may break existing clients" in done.output
    assert "    DROP TABLE forgotten\n" in done.output
    assert "    ALTER TABLE wallets DROP COLUMN older\n" in done.output
    assert drafts(histories) == []
    unchanged = current_path(MIGRATIONS, History.TENANT).read_bytes()
    assert current_path(histories, History.TENANT).read_bytes() == unchanged


def test_an_unsafe_draft_may_be_kept_to_rewrite_it_and_does_not_pass_the_check(histories: Migrations) -> None:
    number = int(add_revision(histories, "op.execute('ALTER TABLE wallets ADD older text')")) + 1
    done = draft("--keep-unsafe")
    assert done.exit_code == 0, done.output
    assert "ALTER TABLE wallets DROP COLUMN older" in done.output
    assert drafts(histories) == [f"{number:04d}_try_it.py"]
    checked = CliRunner().invoke(check_migrations.main)
    assert checked.exit_code == 1
    assert f"tenant {number:04d}: ban-drop-column" in checked.output
    assert checked.output.endswith("Migrations and current.sql agree.\n")


def test_a_function_of_an_earlier_revision_is_not_rewritten_by_a_new_one(histories: Migrations) -> None:
    """What the revisions before it have made is known of each revision under review, also of a frozen one."""
    body = "'CREATE OR REPLACE FUNCTION hold_void_v1(p_wallet_id uuid, p_hold_id uuid, OUT hold holds) RETURN NULL'"
    number = add_revision(histories, f"op.execute({body})")
    found = [(violation.where, violation.rule) for violation in migration_review.review_histories()]
    assert found == [(f"tenant {number}", "rule")]


def test_without_squawk_nothing_is_drafted(histories: Migrations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    for done in (draft(), CliRunner().invoke(check_migrations.main)):
        assert done.exit_code == 1
        assert "squawk is not installed" in done.output
    assert drafts(histories) == []


@pytest.mark.parametrize(
    ("rule", "statement"),
    [
        ("ban-drop-column", "ALTER TABLE wallets DROP COLUMN version"),
        ("ban-drop-table", "DROP TABLE wallets"),
        ("adding-required-field", "ALTER TABLE wallets ADD COLUMN a text NOT NULL"),
        ("adding-not-nullable-field", "ALTER TABLE wallets ALTER COLUMN a SET NOT NULL"),
        ("changing-column-type", "ALTER TABLE wallets ALTER COLUMN a TYPE bigint"),
        ("constraint-missing-not-valid", "ALTER TABLE wallets ADD CONSTRAINT a CHECK (b > 0)"),
        ("renaming-column", "ALTER TABLE wallets RENAME COLUMN a TO b"),
        ("syntax-error", "ALTER TABLE wallets ADD CONSTRAINT CHECK"),
        ("rule", "ALTER TABLE wallets RENAME CONSTRAINT a TO b"),
    ],
)
def test_what_is_unsafe_is_told_with_its_statement(rule: str, statement: str) -> None:
    assert (rule, statement) in violations(f"SELECT 1;\nSELECT 2; {statement};")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE a (id uuid PRIMARY KEY, entries integer NOT NULL)",
        "CREATE INDEX a ON wallets (id)",
        "ALTER TABLE wallets ADD COLUMN a integer NOT NULL DEFAULT 1",
        "ALTER TABLE wallets ADD CONSTRAINT a CHECK (b > 0) NOT VALID",
        "ALTER TABLE wallets VALIDATE CONSTRAINT a",
        "-- Nobody reads it since 0009.\n-- squawk-ignore ban-drop-column\nALTER TABLE wallets DROP COLUMN a",
    ],
)
def test_what_is_safe_here_or_said_to_be_meant_passes(statement: str) -> None:
    assert violations(statement) == []
