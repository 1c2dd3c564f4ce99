"""`flask wallets expire-holds`."""

import sys
from typing import Final

import click
from flask.cli import with_appcontext

from app.holds import service
from app.tenant_visits import chosen_tenants, lock_timeout_option, visit_tenants


@click.command("expire-holds")
@lock_timeout_option
@with_appcontext
def expire_holds(lock_timeout_ms: int) -> None:
    """Mark expired holds of every active tenant, and print the number of wallets. Expired holds block no funds even
    before. Exits 1 if a tenant failed.
    """
    has_failed = False
    for visit in visit_tenants(chosen_tenants(()), lambda _: service.expire_holds(), lock_timeout_ms=lock_timeout_ms):
        if visit.result is None:
            has_failed = True
            click.echo(f"{visit.tenant.slug}: failed: {visit.failure}", err=True)
        else:
            click.echo(f"{visit.tenant.slug}: {visit.result} wallets had expired holds")
    sys.exit(1 if has_failed else 0)


COMMANDS: Final = (expire_holds,)
