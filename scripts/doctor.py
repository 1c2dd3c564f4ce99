"""Check this installation and report every problem. Changes nothing.

Checks the server's settings, the roles and their privileges, row-level security, functions that run with their owner's
rights, the registry, whether each configured login can log in and each secret is that of the installation, whether each
tenant's schema is as the migrations make it, and what the prover found. A schema that is as the last `migration_status
--drift` saw it is not described again, except with --full. A tenant whose tables another session has locked is one
finding, which names that session, and stops no other.

Examples:
    python -m scripts.doctor
    python -m scripts.doctor --full
    PGPASSWORD=… python -m scripts.doctor --superuser-url postgresql://postgres@db/wallet

Prints a table of findings: severity, object, problem, remedy.

Exit codes: 0 no errors, but perhaps warnings: read them and decide; 1 at least one error, or the database can't be
read; 2 bad arguments or settings.
"""

import sys

import rich_click as click

from app.config import Settings
from app.db import admin_engine
from app.login_checks import login_findings, secret_findings
from app.pooler_checks import pooler_findings
from app.prover.doctor import proof_findings
from app.tenancy import MIGRATIONS
from scripts.support.console import (
    FAILED,
    admin_url_or_exit,
    json_option,
    lock_timeout_option,
    settings_or_exit,
    show_json,
    show_table,
)
from scripts.support.script import Script
from tenant_schemas.doctor import Finding, Severity, examine, unseen
from tenant_schemas.registry import all_tenants


@click.command(cls=Script, help=__doc__)
@click.option(
    "--superuser-url",
    envvar="SUPERUSER_DATABASE_URL",
    help="URL of a superuser's login to this database, for the checks that need one. Put its password into the "
    "environment variable PGPASSWORD. Default: SUPERUSER_DATABASE_URL; without both, these checks are skipped.",
)
@click.option("--full", "is_full", is_flag=True, help="Describe every schema again, also an unchanged one.")
@lock_timeout_option
@json_option
def main(*, superuser_url: str | None, is_full: bool, lock_timeout_ms: int, as_json: bool) -> None:
    settings = settings_or_exit(checks_secret=False)
    findings, unchecked = _examine(
        superuser_url or admin_url_or_exit(settings), settings, is_full=is_full, lock_timeout_ms=lock_timeout_ms
    )
    if as_json:
        show_json({"findings": findings, "unseen": unchecked})
    else:
        _show(findings, unchecked)
    if any(finding.severity is Severity.ERROR for finding in findings):
        sys.exit(FAILED)


def _examine(url: str, settings: Settings, *, is_full: bool, lock_timeout_ms: int) -> tuple[list[Finding], list[str]]:
    with admin_engine(url).connect() as connection:
        findings = examine(
            connection,
            MIGRATIONS,
            shared_logins=settings.tenant_logins == "shared",
            max_connections=settings.max_connections,
            is_full=is_full,
            lock_timeout_ms=lock_timeout_ms,
        )
        proofs = proof_findings(connection, settings.proof_max_age_seconds)
        tenants = all_tenants(connection)
        logins = [*secret_findings(connection, settings), *login_findings(tenants, settings)]
        pools = pooler_findings(connection, len(tenants), settings)
        return [*findings, *logins, *pools, *proofs], unseen(connection)


def _show(findings: list[Finding], unchecked: list[str]) -> None:
    rows = [(finding.severity.value, finding.where, finding.what, finding.remedy) for finding in findings]
    if rows:
        show_table("Findings", ("severity", "object", "problem", "remedy"), rows)
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings.")
    if unchecked:
        print(f"Not checked, needs --superuser-url: {'; '.join(unchecked)}.")


if __name__ == "__main__":
    main()
