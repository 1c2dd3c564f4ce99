"""Repair a tenant after a change by hand, or all tenants after a restore of the database: its role, login, owner,
grants and the search_path of its functions become again what the registry and the history say. No row of the tenant
changes, and nothing is dropped.

--adopt gives the tenant a schema that was renamed by hand: it gets its registered name back. If the tenant's row is
gone, --adopt adds one, with the id and the currency that you give; the tenant is suspended then, and has no members.

Examples:
    python -m scripts.repair_tenant km --dry-run
    python -m scripts.repair_tenant --all
    python -m scripts.repair_tenant km --adopt km_old

Prints each tenant with the statements that were run. Each tenant is a db transaction of its own with an entry in the
tenant's audit log, and a tenant that fails stops no other. A superuser is needed if objects belong to another role, or
if a superuser granted a membership.

Exit codes: 0 all tenants are as the registry and the history say; 1 a tenant could not be repaired: the table says
why; 2 bad arguments, or there is no tenant SLUG.
"""

import sys
from collections.abc import Sequence
from uuid import UUID

import psycopg
import rich_click as click
import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db import admin_engine
from app.secret_checks import tenant_url
from app.tenancy import MIGRATIONS
from app.tenant_settings import new_settings
from app.tenants.audit import add_system_entry
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    exit_with,
    json_option,
    lock_timeout_option,
    settings_or_exit,
    show_json,
    show_table,
)
from scripts.support.script import Script
from tenant_schemas.migrations.history import first_line, set_timeouts
from tenant_schemas.registry import all_tenants, get_tenant
from tenant_schemas.repair.adoption import Adoption
from tenant_schemas.repair.repair import Repaired, Repairer
from tenant_schemas.sessions import lock_holders
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import Visit, visit_each

_CONNECT_SECONDS = 3
_MAX_NOTED_CHANGES = 50


@click.command(cls=Script, help=__doc__)
@click.argument("slug", required=False)
@click.option("--all", "is_all", is_flag=True, help="Repair every tenant, of any status.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Print the statements and change nothing.")
@click.option("--adopt", "schema_name", metavar="SCHEMA", help="Give the tenant this schema.")
@click.option("--id", "tenant_id", type=click.UUID, help="With --adopt: the id of a tenant without a row.")
@click.option("--currency", help="With --adopt: the main currency of a tenant without a row.")
@click.option("--name", help="With --adopt: the display name of a tenant without a row. Default: SLUG.")
@click.option(
    "--superuser-url",
    envvar="SUPERUSER_DATABASE_URL",
    help="URL of a superuser's login to this database. Put its password into the environment variable PGPASSWORD. "
    "Default: SUPERUSER_DATABASE_URL; without both, the migrator's login repairs what it may.",
)
@lock_timeout_option
@json_option
def main(
    *,
    slug: str | None,
    is_all: bool,
    is_dry: bool,
    schema_name: str | None,
    tenant_id: UUID | None,
    currency: str | None,
    name: str | None,
    superuser_url: str | None,
    lock_timeout_ms: int,
    as_json: bool,
) -> None:
    if (slug is None) != is_all or (is_all and schema_name):
        exit_with("Give SLUG or --all. --adopt is for one tenant.", BAD_ARGUMENTS)
    if (tenant_id or currency or name) and not schema_name:
        exit_with("--id, --currency and --name are for --adopt.", BAD_ARGUMENTS)
    settings = settings_or_exit()
    engine = admin_engine(superuser_url or admin_url_or_exit(settings))
    run = _Run(engine, settings, lock_timeout_ms, is_dry)
    if schema_name and slug:
        chosen = {"currency": currency} if currency else {}
        adoption = Adoption(
            schema_name=schema_name, tenant_id=tenant_id, name=name, settings=new_settings(chosen) if chosen else {}
        )
        visits = [Visit(each.tenant, each) for each in [run.repair(slug, adoption)]]
    else:
        with engine.connect() as connection:
            tenants = [get_tenant(connection, slug)] if slug else all_tenants(connection)
        visits = list(visit_each(tenants, lambda tenant: run.repair(tenant.slug), run.holders_of))
    _show(visits, as_json=as_json, is_dry=is_dry)
    if any(each.failure or (each.result and each.result.problem) for each in visits):
        sys.exit(FAILED)


class _Run:
    """Repairs tenants, each in a db transaction that is committed unless the run is dry."""

    def __init__(self, engine: Engine, settings: Settings, lock_timeout_ms: int, is_dry: bool) -> None:
        self._engine, self._settings, self._lock_timeout_ms, self._is_dry = engine, settings, lock_timeout_ms, is_dry
        self._repairer = Repairer(MIGRATIONS, settings.tenant_secret, self._can_log_in)

    def repair(self, slug: str, adoption: Adoption | None = None) -> Repaired:
        with self._engine.connect() as connection, connection.begin() as transaction:
            set_timeouts(connection, self._lock_timeout_ms)
            repaired = self._repairer.repair(connection, slug, adoption)
            if repaired.changes and not repaired.problem:
                repaired = _with_entry(connection, repaired)
            if self._is_dry:
                transaction.rollback()
        return repaired

    def holders_of(self, tenant: Tenant) -> str:
        with self._engine.connect() as connection:
            return lock_holders(connection, tenant.schema_name)

    def _can_log_in(self, tenant: Tenant) -> bool:
        """Not through DATABASE_URL: that may be a PgBouncer."""
        direct = sa.make_url(self._settings.admin_database_url or self._settings.database_url)
        try:
            psycopg.connect(
                tenant_url(direct, self._settings.tenant_secret, tenant), connect_timeout=_CONNECT_SECONDS
            ).close()
        except psycopg.OperationalError:
            return False
        return True


def _with_entry(connection: Connection, repaired: Repaired) -> Repaired:
    """Write the audit entry. A log that can't be written is a problem of the report: the repair stays."""
    told = {"statements": len(repaired.changes), "changes": repaired.changes[:_MAX_NOTED_CHANGES]}
    try:
        with connection.begin_nested():
            add_system_entry(connection, repaired.tenant, "tenant.repair", subject=repaired.tenant.slug, after=told)
    except DBAPIError as error:
        problem = f"It was repaired, but its audit log can't be written: {first_line(error)}"
        return Repaired(repaired.tenant, repaired.changes, problem)
    return repaired


def _show(visits: Sequence[Visit[Repaired]], *, as_json: bool, is_dry: bool) -> None:
    if as_json:
        show_json([{"slug": each.tenant.slug, "changes": _changes(each), "problem": _problem(each)} for each in visits])
        return
    rows = [(each.tenant.slug, "\n".join(_changes(each)), _problem(each)) for each in visits]
    show_table("Would be repaired" if is_dry else "Repaired", ("tenant", "statements", "problem"), rows)


def _changes(visit: Visit[Repaired]) -> list[str]:
    return visit.result.changes if visit.result else []


def _problem(visit: Visit[Repaired]) -> str | None:
    return str(visit.failure) if visit.failure else visit.result.problem if visit.result else None


if __name__ == "__main__":
    main()
