"""Brings `shared` and every tenant's schema to the head of its history, each in a db transaction of its own.

Alembic's `op` and `context` are globals of their modules, so its commands run one after another, never in threads.
One schema's failure is reported and touches no other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from tenant_schemas import registry
from tenant_schemas.roles import TENANT_ROLE_SETTING, ServiceRoles, become_owner
from tenant_schemas.search_path import bind_migration
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant

VERSION_TABLE = "alembic_version"
LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 600_000


class History(StrEnum):
    """The two lines of migrations; the value is the section of setup.cfg."""

    SHARED = "alembic:shared"
    TENANT = "alembic"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one schema: at `before`, now at `after`; with an `error` it is still at `before`."""

    schema_name: str
    slug: str | None
    before: str | None
    after: str | None
    error: str | None = None

    @property
    def has_failed(self) -> bool:
        return self.error is not None


@dataclass(frozen=True, slots=True)
class Migrations:
    """The histories that a setup.cfg names, and the roles in whose name they run."""

    setup_cfg: Path
    roles: ServiceRoles

    def head(self, history: History) -> str:
        head = ScriptDirectory.from_config(self._config(history)).get_current_head()
        if head is None:
            raise LookupError(f"[{history}] in {self.setup_cfg} has no revisions.")
        return head

    def migrate_shared(self, engine: Engine) -> Outcome:
        """Make `shared` if it is missing and bring it to its head."""
        before = None
        try:
            with engine.begin() as connection:
                set_timeouts(connection)
                become_owner(connection, self.roles)
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SHARED_SCHEMA}")
                before = current_revision(connection, SHARED_SCHEMA)
                after = self.upgrade(connection, History.SHARED, SHARED_SCHEMA)
        except Exception as error:  # noqa: BLE001  Whatever it is, it is this schema's outcome.
            return Outcome(SHARED_SCHEMA, None, before, before, _first_line(error))
        return Outcome(SHARED_SCHEMA, None, before, after)

    def migrate_tenants(self, engine: Engine, slugs: Sequence[str] = ()) -> Iterator[Outcome]:
        """Bring every tenant, or those named, to the head, one by one; yields each outcome as it happens."""
        with engine.connect() as connection:
            named = [registry.get_tenant(connection, slug) for slug in slugs]
            tenants = named or registry.all_tenants(connection)
        for tenant in tenants:
            yield self._migrate_tenant(engine, tenant)

    def _migrate_tenant(self, engine: Engine, tenant: Tenant) -> Outcome:
        before = tenant.revision
        try:
            with engine.begin() as connection:
                set_timeouts(connection)
                become_owner(connection, self.roles)
                locked = registry.lock_tenant(connection, tenant.id)
                before = locked.revision
                after = self.upgrade_tenant(connection, locked)
                registry.set_revision(connection, tenant.id, after)
        except Exception as error:  # noqa: BLE001  Whatever it is, it is this tenant's outcome.
            return Outcome(tenant.schema_name, tenant.slug, before, before, _first_line(error))
        return Outcome(tenant.schema_name, tenant.slug, before, after)

    def upgrade_tenant(self, connection: Connection, tenant: Tenant) -> str:
        """Bring one tenant's schema to the head within the open db transaction, as the owner; returns the revision."""
        connection.exec_driver_sql("SELECT set_config(%s, %s, true)", (TENANT_ROLE_SETTING, tenant.role_name))
        return self.upgrade(connection, History.TENANT, tenant.schema_name)

    def upgrade(self, connection: Connection, history: History, schema_name: str) -> str:
        """Run a history's pending revisions in one schema, within the open db transaction; returns the revision."""
        bind_migration(connection, schema_name)
        config = self._config(history)
        config.attributes |= {"connection": connection, "schema_name": schema_name}
        command.upgrade(config, "head")
        revision = current_revision(connection, schema_name)
        if revision is None:
            raise LookupError(f"{schema_name} has no revision after its migration.")
        return revision

    def draft(self, connection: Connection, history: History, metadata: sa.MetaData, message: str) -> list[Path]:
        """Write the next numbered revision file: what takes the bound schema to the models. Returns its path."""
        schema_name = connection.exec_driver_sql("SELECT current_schema()").scalar_one()
        config = self._config(history)
        config.attributes |= {"connection": connection, "schema_name": schema_name, "metadata": metadata}
        number = f"{int(self.head(history)) + 1:04d}"
        made = command.revision(config, message, autogenerate=True, rev_id=number)
        return [Path(script.path) for script in (made if isinstance(made, list) else [made]) if script]

    def _config(self, history: History) -> Config:
        config = Config(self.setup_cfg, ini_section=history)
        for option in ("script_location", "version_locations"):
            config.set_main_option(option, str(self.setup_cfg.parent / (config.get_main_option(option) or "")))
        return config


def set_timeouts(connection: Connection) -> None:
    """Wait for no lock for long, until the db transaction ends, so that whoever queues behind us goes on soon. The
    first statement of everything that changes schemas.
    """
    connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {LOCK_TIMEOUT_MS}")
    connection.exec_driver_sql(f"SET LOCAL statement_timeout TO {STATEMENT_TIMEOUT_MS}")


def current_revision(connection: Connection, schema_name: str) -> str | None:
    """The revision a schema is at, None before its first. A schema of ours has one line of history, so one row."""
    return _context(connection, schema_name).get_current_revision()


def differences(connection: Connection, metadata: sa.MetaData, schema_name: str) -> list[Any]:
    """What the models say that the schema does not, and the reverse, in Alembic's words. Empty is good."""
    bind_migration(connection, schema_name)
    return list(compare_metadata(_context(connection, schema_name), metadata))


def comparison_options(schema_name: str) -> dict[str, Any]:
    """How Alembic looks at one schema only, and not at the table in which it keeps its own revision."""

    def is_ours(name: str | None, kind: str, _: object) -> bool:
        if kind == "schema":
            return name == (schema_name if schema_name == SHARED_SCHEMA else None)
        return not (kind == "table" and name == VERSION_TABLE)

    return {
        "version_table": VERSION_TABLE,
        "version_table_schema": schema_name,
        "include_schemas": True,
        "include_name": is_ours,
        "compare_type": True,
        "compare_server_default": False,
    }


def _context(connection: Connection, schema_name: str) -> MigrationContext:
    return MigrationContext.configure(connection, opts=comparison_options(schema_name))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
