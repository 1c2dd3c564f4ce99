"""`flask wallets expire-documents`."""

import sys
from typing import Final

import click
import psycopg
from flask.cli import with_appcontext
from sqlalchemy.exc import SQLAlchemyError

from app.statements.documents.service import expire_documents as expire
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.registry import all_tenants
from tenant_schemas.tenant import Tenant


@click.command("expire-documents")
@with_appcontext
def expire_documents() -> None:
    """Delete expired documents of every active tenant, and print their number. They are not shown even before. Exits 1
    if a tenant failed.
    """
    with connections().shared.begin() as connection:
        tenants = [tenant for tenant in all_tenants(connection) if tenant.is_active]
    failed = [tenant.slug for tenant in tenants if not _expire_documents_of(tenant)]
    sys.exit(1 if failed else 0)


def _expire_documents_of(tenant: Tenant) -> bool:
    try:
        with tenant_context(tenant):
            count = expire()
    except (SQLAlchemyError, TenancyError, psycopg.Error) as error:
        click.echo(f"{tenant.slug}: failed: {error.args[0]}", err=True)
        return False
    click.echo(f"{tenant.slug}: {count} documents were deleted")
    return True


COMMANDS: Final = (expire_documents,)
