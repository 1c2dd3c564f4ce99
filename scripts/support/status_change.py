"""Changes a tenant's status for a command, with an entry in the tenant's audit log, in one db transaction."""

from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.db import admin_engine
from app.tenants.audit import add_system_entry
from scripts.support.console import admin_url_or_exit, settings_or_exit, warn
from tenant_schemas.migrations.history import first_line, set_timeouts
from tenant_schemas.registry import get_tenant_by_id
from tenant_schemas.tenant import Tenant


def change_status(
    slug: str, change: Callable[[Connection, str], Tenant], action: str, *, needs_log: bool = True
) -> None:
    """Make the change of `tenant_schemas.lifecycle.archive`; commits. Exits with a message if it is refused. Without
    `needs_log`, an audit log that can't be written is only warned of: a broken tenant can be put away too.
    """
    with admin_engine(admin_url_or_exit(settings_or_exit())).begin() as connection:
        set_timeouts(connection)
        before = change(connection, slug)
        try:
            with connection.begin_nested():
                _write_entry(connection, before, action)
        except DBAPIError as error:
            if needs_log:
                raise
            warn(
                f"Warning: the audit log of tenant {slug} has no entry for this, it can't be written: "
                f"{first_line(error)}"
            )


def _write_entry(connection: Connection, before: Tenant, action: str) -> None:
    after = get_tenant_by_id(connection, before.id)
    told = {"before": {"status": before.status}, "after": {"status": after.status}}
    add_system_entry(connection, before, action, subject=before.slug, **told)
