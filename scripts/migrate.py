"""Migrate the shared schema, and then every tenant's schema, to the head of its history.

Each tenant is migrated in its own db transaction. A tenant that fails stays at its old revision, and the others go on.
A tenant whose tables are locked by another session is tried again after the others; the report names that session. A
run can be interrupted at any time: run it again. When all tenants are at the head, the retired schemas that restores
replaced follow, so that `restore_tenant --from-retired` can put them back.

Examples:
    python -m scripts.migrate --dry-run
    python -m scripts.migrate
    python -m scripts.migrate --canary eur --share 10

The first run stores the check values of the secrets, which all commands compare from then on.

Prints the plan and the progress on standard error, then a table of the schemas that failed (of all schemas, if there
are at most 20, or newer than this code) and the totals. `migration_status --run` shows the record of a run.

A failure names the revision and the statement. SIGTERM ends a run as Ctrl-C does.

A schema that a later release has migrated is left as it is and listed: it is no failure.

Exit codes: 0 every schema is at its target revision, or newer than this code; 1 a schema failed or was not reached; 2
bad arguments, or there is no such tenant or revision: nothing was migrated.
"""

import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import rich_click as click
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db import admin_engine
from app.secret_checks import record_first_secrets
from app.tenancy import MIGRATIONS
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    exit_with,
    json_option,
    settings_or_exit,
    show_json,
    show_table,
)
from scripts.support.migration_plan import show_sql
from scripts.support.migration_progress import MigrationProgress
from scripts.support.script import Script
from tenant_schemas.errors import MigrationError, RevisionRefused
from tenant_schemas.migrations.history import Outcome
from tenant_schemas.migrations.runner import MigrateOptions, migrate
from tenant_schemas.restore.retired_migrations import migrate_retired_schemas
from tenant_schemas.schema_diff.reference import store_head_fingerprint

_MAX_OUTCOMES_SHOWN: Final = 20


@click.command(cls=Script, help=__doc__)
@click.option(
    "--tenant", "slugs", multiple=True, help="Migrate the shared schema, then only this tenant; may be repeated."
)
@click.option("--to", metavar="REVISION", help="Migrate tenants, up or down, to this revision; not the shared schema.")
@click.option("--shared-to", metavar="REVISION", help="Migrate the shared schema to this revision; no tenant.")
@click.option("--dry-run", is_flag=True, help="Print the plan and the SQL; change nothing.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Tenants migrated at once.")
@click.option(
    "--lock-timeout",
    type=click.IntRange(1, 3_600_000),
    default=2_000,
    show_default=True,
    help="Longest wait for a table's lock, in milliseconds.",
)
@click.option(
    "--statement-timeout",
    type=click.IntRange(0, 86_400_000),
    default=600_000,
    show_default=True,
    help="Longest statement, in milliseconds; 0 for no limit.",
)
@click.option(
    "--attempts",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    help="Attempts at a tenant whose tables another session has locked.",
)
@click.option(
    "--canary",
    "canaries",
    multiple=True,
    metavar="SLUG",
    help="Migrate this tenant in the first wave, before all others; may be repeated.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 100),
    help="Migrate this percentage of the other tenants in a wave of their own, before the rest.",
)
@click.option(
    "--failure-budget",
    type=click.IntRange(0),
    help="Start no more tenants when more than this number have failed. Default: 0 with --canary or --share, else no "
    "limit.",
)
@click.option(
    "--atomic",
    "is_atomic",
    is_flag=True,
    help="Migrate all schemas in one db transaction: all or none. For small installations.",
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.IntRange(0, 86_400),
    default=0,
    show_default=True,
    help="Longest wait for another migrator to finish, in seconds.",
)
@json_option
def main(
    *,
    slugs: tuple[str, ...],
    to: str | None,
    shared_to: str | None,
    dry_run: bool,
    jobs: int,
    lock_timeout: int,
    statement_timeout: int,
    attempts: int,
    canaries: tuple[str, ...],
    share: float | None,
    failure_budget: int | None,
    is_atomic: bool,
    wait_seconds: int,
    as_json: bool,
) -> None:
    if to is not None and shared_to is not None:
        exit_with("Give --to or --shared-to, not both: a run with a target migrates one history.", BAD_ARGUMENTS)
    if "" in (to, shared_to):
        exit_with("--to and --shared-to need a revision, for example 0009.", BAD_ARGUMENTS)
    if dry_run and as_json:
        exit_with("Give --dry-run or --json, not both: a dry run prints SQL.", BAD_ARGUMENTS)
    options = MigrateOptions(
        slugs=slugs,
        to=to,
        shared_to=shared_to,
        jobs=jobs,
        lock_timeout_ms=lock_timeout,
        statement_timeout_ms=statement_timeout,
        attempts=attempts,
        canaries=canaries,
        share_percent=share,
        failure_budget=failure_budget,
        is_atomic=is_atomic,
        wait_seconds=wait_seconds,
    )
    settings = settings_or_exit()
    engine = admin_engine(admin_url_or_exit(settings))
    try:
        if dry_run:
            show_sql(engine, MIGRATIONS, options)
        else:
            _run(engine, settings, options, as_json=as_json)
    except RevisionRefused as error:
        exit_with(str(error), BAD_ARGUMENTS)


def _run(engine: sa.Engine, settings: Settings, options: MigrateOptions, *, as_json: bool) -> None:
    """Migrate, and print the outcomes, also those before an interruption or an error. Exits 1 if a schema failed or was
    not reached.
    """
    outcomes: list[Outcome] = []
    progress = MigrationProgress(MIGRATIONS, is_quiet=as_json)
    try:
        with progress, closing(migrate(engine, MIGRATIONS, options, progress.show_plan)) as run:
            for outcome in run:
                outcomes.append(outcome)
                progress.count(outcome)
    except KeyboardInterrupt:
        print(
            "Interrupted. Schemas that are not listed may be migrated: see `migration_status`. Run `migrate` again.",
            file=sys.stderr,
        )
        _show(outcomes, progress.planned_tenants, as_json=as_json)
        sys.exit(FAILED)
    except (MigrationError, DBAPIError):
        _show(outcomes, progress.planned_tenants, as_json=as_json)
        raise
    if not (options.names_tenants or options.to or options.shared_to or any(each.has_failed for each in outcomes)):
        outcomes += migrate_retired_schemas(engine, MIGRATIONS)
    _show(outcomes, progress.planned_tenants, as_json=as_json)
    record_first_secrets(engine, settings)
    if any(outcome.has_failed for outcome in outcomes):
        sys.exit(FAILED)
    store_head_fingerprint(engine, MIGRATIONS)


def _show(outcomes: Sequence[Outcome], planned_tenants: int, *, as_json: bool) -> None:
    """As JSON all outcomes; as a table those that failed or, if they are few, all."""
    if as_json:
        return show_json(outcomes)
    shows_all = len(outcomes) <= _MAX_OUTCOMES_SHOWN
    shown = [outcome for outcome in outcomes if outcome.has_failed or outcome.note or shows_all]
    rows = [(each.schema_name, each.before or "-", each.after or "-", _outcome_text(each)) for each in shown]
    if rows:
        show_table("Migrations", ("schema", "before", "after", "outcome"), rows)
    failed = sum(outcome.has_failed and not outcome.was_skipped for outcome in outcomes)
    skipped = sum(outcome.was_skipped for outcome in outcomes)
    unknown = max(0, planned_tenants - sum(outcome.slug is not None for outcome in outcomes))
    unreported = f" {unknown} may be migrated or not: see `migration_status`." if unknown else ""
    done = len(outcomes) - failed - skipped
    print(
        f"{done} of {len(outcomes) + unknown} schemas are at their target, {failed} failed, "
        f"{skipped} were not reached.{unreported}"
    )
    return None


def _outcome_text(outcome: Outcome) -> str:
    if outcome.error is None:
        return outcome.note or ("migrated" if outcome.before != outcome.after else "nothing to do")
    state = f" (SQLSTATE {outcome.sqlstate})" if outcome.sqlstate else ""
    attempts = f" {outcome.attempts} attempts." if outcome.attempts > 1 else ""
    blocked = f" Blocked by: {outcome.blocked_by}" if outcome.blocked_by else ""
    return f"{outcome.error}{state}{attempts}{blocked}"


if __name__ == "__main__":
    main()
