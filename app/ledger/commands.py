"""`flask wallets audit`."""

import sys
from typing import Final

import click
from flask.cli import with_appcontext
from sqlalchemy.exc import SQLAlchemyError

from app.db import db
from app.ledger.audit import AuditReport, Finding, audit_ledger
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.registry import all_tenants


@click.command("audit")
@click.option("--tenant", "slugs", multiple=True, help="Only this tenant; may be repeated.")
@with_appcontext
def audit(slugs: tuple[str, ...]) -> None:
    """Recompute every chain, every balance and the trial balance of each tenant, compare its events with them, and
    print the findings. Exits 1 if there are any.
    """
    try:
        with connections().shared.begin() as connection:
            slugs = slugs or tuple(tenant.slug for tenant in all_tenants(connection))
    except SQLAlchemyError as error:
        advice = "Check DATABASE_URL, and run `python -m scripts.migrate`."
        raise click.UsageError(f"The database refused or does not answer: {error.args[0]}\n{advice}") from None
    failed = [slug for slug in slugs if not _audit_one(slug)]
    click.echo(
        f"{len(slugs)} tenants audited, {len(failed)} with findings" + (f": {', '.join(failed)}" if failed else "")
    )
    sys.exit(1 if failed else 0)


def _audit_one(slug: str) -> bool:
    try:
        with tenant_context(slug):
            report = audit_ledger()
    except TenancyError as error:
        raise click.ClickException(str(error)) from None
    except SQLAlchemyError as error:
        db.session.rollback()
        report = AuditReport(0, 0, (Finding(None, None, f"the audit failed: {error.args[0]}"),))
    _print(slug, report)
    return not report.findings


def _print(slug: str, report: AuditReport) -> None:
    verdict = "sound" if not report.findings else "NOT SOUND"
    click.echo(f"{slug}: {verdict}: {report.wallets} wallets, {report.transactions} transactions")
    for finding in report.findings:
        seq = "" if finding.seq is None else f" seq {finding.seq}"
        where = f"wallet {finding.wallet_id}{seq}" if finding.wallet_id else "tenant"
        click.echo(f"  {where}: {finding.text}")


COMMANDS: Final = (audit,)
