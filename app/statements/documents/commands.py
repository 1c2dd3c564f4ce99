"""`flask wallets expire-documents`."""

import sys
from typing import Final

import click
from flask.cli import with_appcontext

from app.statements.documents.service import expire_documents as expire
from app.tenant_visits import chosen_tenants, lock_timeout_option, visit_tenants


@click.command("expire-documents")
@lock_timeout_option
@with_appcontext
def expire_documents(lock_timeout_ms: int) -> None:
    """Delete expired documents of every active tenant, and print their number. They are not shown even before. Exits 1
    if a tenant failed.
    """
    has_failed = False
    for visit in visit_tenants(chosen_tenants(()), lambda _: expire(), lock_timeout_ms=lock_timeout_ms):
        if visit.result is None:
            has_failed = True
            click.echo(f"{visit.tenant.slug}: failed: {visit.failure}", err=True)
        else:
            click.echo(f"{visit.tenant.slug}: {visit.result} documents were deleted")
    sys.exit(1 if has_failed else 0)


COMMANDS: Final = (expire_documents,)
