"""`flask wallets audit`."""

import sys
from typing import Final

import click
from flask.cli import with_appcontext

from app.ledger.audit import AuditReport, audit_ledger
from app.tenant_visits import chosen_tenants, lock_timeout_option, visit_tenants


@click.command("audit")
@click.option("--tenant", "slugs", multiple=True, help="Only this tenant; may be repeated. Default: every tenant.")
@lock_timeout_option
@with_appcontext
def audit(slugs: tuple[str, ...], lock_timeout_ms: int) -> None:
    """Recompute every chain, every balance and the trial balance of each tenant, compare its events with them, and
    print the findings. A tenant that can't be read stops no other. Exits 1 if there are findings, or if a tenant could
    not be audited.
    """
    tenants, faulty, failed = chosen_tenants(slugs, of_any_status=True), [], []
    for visit in visit_tenants(tenants, lambda _: audit_ledger(), lock_timeout_ms=lock_timeout_ms):
        slug = visit.tenant.slug
        if visit.result is None:
            failed.append(slug)
            click.echo(f"{slug}: not audited: {visit.failure}", err=True)
            continue
        _print(slug, visit.result)
        if visit.result.findings:
            faulty.append(slug)
    done = len(tenants) - len(failed)
    click.echo(
        f"{done} of {len(tenants)} tenants audited, {_counted(faulty, 'with findings')}, "
        f"{_counted(failed, 'not audited')}"
    )
    sys.exit(1 if faulty or failed else 0)


def _counted(slugs: list[str], what: str) -> str:
    return f"{len(slugs)} {what}" + (f" ({', '.join(slugs)})" if slugs else "")


def _print(slug: str, report: AuditReport) -> None:
    verdict = "sound" if not report.findings else "NOT SOUND"
    click.echo(f"{slug}: {verdict}: {report.wallets} wallets, {report.transactions} transactions")
    for finding in report.findings:
        seq = "" if finding.seq is None else f" seq {finding.seq}"
        where = f"wallet {finding.wallet_id}{seq}" if finding.wallet_id else "tenant"
        click.echo(f"  {where}: {finding.text}")


COMMANDS: Final = (audit,)
