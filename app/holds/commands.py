"""`flask wallets expire-holds`."""

from typing import Final

import click
from flask.cli import with_appcontext

from app.holds import service
from app.tenant_visits import lock_timeout_option, report_counts


@click.command("expire-holds")
@lock_timeout_option
@with_appcontext
def expire_holds(lock_timeout_ms: int) -> None:
    """Mark expired holds of every active tenant, and print the number of wallets. Expired holds block no funds even
    before. Exits 1 if a tenant failed.
    """
    report_counts(service.expire_holds, "wallets had expired holds", lock_timeout_ms=lock_timeout_ms)


COMMANDS: Final = (expire_holds,)
