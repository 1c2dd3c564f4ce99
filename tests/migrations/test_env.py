"""Alembic typed by hand is refused; the models say what the migrations made; a draft has only the change."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from app.config import ROOT
from app.db import SharedModel, TenantModel
from app.ledger import models as _ledger  # noqa: F401  Its tables belong to the tenant's metadata.
from app.users import models as _users  # noqa: F401  And its to the shared one.
from app.wallets import models as _wallets  # noqa: F401
from tenant_schemas.migrations.history import History, differences
from tenant_schemas.search_path import bind_migration
from tenant_schemas.testing.plugin import Database
from tests.factories.histories import copied_histories
from tests.factories.scratch_revision import HEAD, SCHEMAS, migrate, tables_in


@pytest.mark.parametrize("history", list(History))
def test_alembic_typed_by_hand_is_refused_and_says_what_to_type(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = Config("setup.cfg", ini_section=history)
    for typed in (
        lambda: command.upgrade(config, "head"),
        lambda: command.upgrade(config, "head", sql=True),
        lambda: command.current(config),
        lambda: command.check(config),
        lambda: command.stamp(config, "head"),
    ):
        with pytest.raises(CommandError, match=r"scripts\.migrate"):
            typed()


def differing(database: Database, metadata: sa.MetaData, schema_name: str) -> list[Any]:
    with database.admin_engine().begin() as connection:
        return differences(connection, metadata, schema_name)


MODELS = pytest.mark.parametrize(
    ("metadata", "schema_name"),
    [(SharedModel.metadata, "shared"), (TenantModel.metadata, "eur_schema"), (TenantModel.metadata, "km_schema")],
    ids=["shared", "eur", "km"],
)


@MODELS
def test_the_models_say_what_the_migrations_made(database: Database, metadata: sa.MetaData, schema_name: str) -> None:
    assert metadata.tables
    assert differing(database, metadata, schema_name) == []


def test_a_difference_made_by_hand_is_seen_in_its_schema_only(fresh_database: Database) -> None:
    """A column, a table, a type. Each is undone before the next."""
    superuser = fresh_database.as_superuser()
    for change, undoing in (
        ("ALTER TABLE eur_schema.wallets ADD COLUMN by_hand int", "ALTER TABLE eur_schema.wallets DROP COLUMN by_hand"),
        ("CREATE TABLE eur_schema.by_hand (id uuid)", "DROP TABLE eur_schema.by_hand"),
        (
            "ALTER TABLE eur_schema.order_items ALTER COLUMN name TYPE varchar(99)",
            "ALTER TABLE eur_schema.order_items ALTER COLUMN name TYPE text",
        ),
    ):
        superuser.execute(change)  # type: ignore[arg-type]
        assert differing(fresh_database, TenantModel.metadata, "eur_schema"), change
        superuser.execute(undoing)  # type: ignore[arg-type]
    assert differing(fresh_database, TenantModel.metadata, "eur_schema") == []
    superuser.execute("ALTER TABLE km_schema.wallets ADD COLUMN by_hand int")
    superuser.execute("ALTER TABLE shared.users ADD COLUMN by_hand int")
    assert differing(fresh_database, TenantModel.metadata, "eur_schema") == []
    assert differing(fresh_database, TenantModel.metadata, "km_schema")
    assert differing(fresh_database, SharedModel.metadata, "shared")


def test_the_next_revision_is_drafted_from_the_models_and_can_be_run(
    fresh_database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Numbered, in the right folder, and about nothing but what is new."""
    drafting, metadata = copied_histories(tmp_path), TenantModel.metadata
    table = sa.Table("drafted", metadata, sa.Column("id", sa.Uuid, primary_key=True), sa.Column("note", sa.Text))
    request.addfinalizer(lambda: metadata.remove(table))
    with fresh_database.admin_engine().begin() as connection:
        bind_migration(connection, "eur_schema")
        (path,) = drafting.draft(connection, History.TENANT, metadata, "Add drafted")
    assert path == tmp_path / "migrations" / "tenant" / f"{HEAD}_add_drafted.py"
    text = path.read_text()
    assert text.count("op.create_table(") == 1
    assert "eur_schema" not in text
    assert "drop" not in text.partition("def downgrade")[0]
    outcomes = migrate(drafting, fresh_database)
    assert {outcome.after for outcome in outcomes.values()} == {HEAD}
    for schema_name in SCHEMAS.values():
        assert "drafted" in tables_in(fresh_database, schema_name)
        assert differing(fresh_database, metadata, schema_name) == []
