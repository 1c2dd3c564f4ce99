"""`flask wallets expire-holds`."""

import sys
from typing import Final

import click
from flask.cli import with_appcontext
from sqlalchemy.exc import SQLAlchemyError

from app.db import db
from app.holds import service
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.registry import all_tenants
from tenant_schemas.tenant import Tenant


@click.command("expire-holds")
@with_appcontext
def expire_holds() -> None:
    """Mark expired holds of every active tenant, and print the number of wallets. Expired holds block no funds even
    before. Exits 1 if a tenant failed.
    """
    with connections().shared.begin() as connection:
        tenants = [tenant for tenant in all_tenants(connection) if tenant.is_active]
    failed = [tenant.slug for tenant in tenants if not _expire_holds_of(tenant)]
    sys.exit(1 if failed else 0)


def _expire_holds_of(tenant: Tenant) -> bool:
    try:
        with tenant_context(tenant):
            count = service.expire_holds()
    except (SQLAlchemyError, TenancyError) as error:
        db.session.rollback()
        click.echo(f"{tenant.slug}: failed: {error.args[0]}", err=True)
        return False
    click.echo(f"{tenant.slug}: {count} wallets had expired holds")
    return True


COMMANDS: Final = (expire_holds,)
