"""Examine this installation, and change nothing: the server's settings, the roles and what each may do, row-level
security, functions with the owner's rights, the registry, and whether tenants' schemas differ. Exits 1 on any error;
warnings are for somebody to know and decide.
"""

import sys
from dataclasses import asdict

import rich_click as click

from app.config import Settings
from app.db import admin_engine
from app.tenancy import MIGRATIONS
from scripts.support.console import (
    FAILED,
    admin_url_or_exit,
    json_option,
    refusals_exit,
    settings_or_exit,
    show_json,
    show_table,
)
from tenant_schemas.doctor import Finding, Severity, examine, unseen


@click.command(help=__doc__)
@click.option(
    "--superuser-url",
    envvar="SUPERUSER_DATABASE_URL",
    help="A superuser's URL of this database: it sees more. A password is better put in PGPASSWORD.",
)
@json_option
@refusals_exit()
def main(superuser_url: str | None, as_json: bool) -> None:
    settings = settings_or_exit()
    findings, not_seen = _examine(superuser_url or admin_url_or_exit(settings), settings)
    if as_json:
        show_json({"findings": [asdict(finding) for finding in findings], "unseen": not_seen})
    else:
        _show(findings, not_seen)
    if any(finding.severity is Severity.ERROR for finding in findings):
        sys.exit(FAILED)


def _examine(url: str, settings: Settings) -> tuple[list[Finding], list[str]]:
    with admin_engine(url).connect() as connection:
        findings = examine(
            connection,
            MIGRATIONS,
            shared_logins=settings.tenant_logins == "shared",
            max_connections=settings.max_connections,
        )
        return findings, unseen(connection)


def _show(findings: list[Finding], not_seen: list[str]) -> None:
    rows = [(finding.severity.value, finding.where, finding.what, finding.remedy) for finding in findings]
    if rows:
        show_table("Findings", ("severity", "where", "what", "what to do"), rows)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings.")
    if not_seen:
        print(f"Not looked at, for want of a superuser: {'; '.join(not_seen)}.")


if __name__ == "__main__":
    main()
