"""`flask wallets expire-documents`."""

from typing import Final

import click
from flask.cli import with_appcontext

from app.statements.documents.service import expire_documents as expire
from app.tenant_visits import lock_timeout_option, report_counts


@click.command("expire-documents")
@lock_timeout_option
@with_appcontext
def expire_documents(lock_timeout_ms: int) -> None:
    """Delete expired documents of every active tenant, and print their number. They are not shown even before. Exits 1
    if a tenant failed.
    """
    report_counts(expire, "documents were deleted", lock_timeout_ms=lock_timeout_ms)


COMMANDS: Final = (expire_documents,)
