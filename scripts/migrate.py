"""Bring `shared` and then every tenant to the head of its history, and say what became of each.

Each tenant has a db transaction of its own. One that fails stays as it was and stops nobody; one whose table is busy is
tried again after the others, and the report names who was in the way. A run may be interrupted at any moment: run it
again. Exits 1 if any tenant is not where it should be.
"""

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Final

import rich_click as click
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from app.db import admin_engine
from app.tenancy import MIGRATIONS
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    json_option,
    refusals_exit,
    settings_or_exit,
    show_json,
    show_table,
    stop,
)
from scripts.support.migration_plan import show_sql
from scripts.support.migration_progress import Watch
from tenant_schemas.errors import MigrationError, RevisionRefused
from tenant_schemas.migrations.history import Outcome
from tenant_schemas.migrations.runner import MigrateOptions, migrate
from tenant_schemas.schema_diff.reference import store_head_fingerprint

_SHOWN_AT_MOST: Final = 20


@click.command(help=__doc__)
@click.option("--tenant", "slugs", multiple=True, help="After shared, only this tenant; may be repeated.")
@click.option("--to", metavar="REVISION", help="Take tenants to this revision, up or down, and leave shared alone.")
@click.option("--shared-to", metavar="REVISION", help="Take shared to this revision, and leave tenants alone.")
@click.option("--dry-run", is_flag=True, help="Show the plan and the SQL, and do nothing.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Tenants at a time.")
@click.option(
    "--lock-timeout", type=click.IntRange(1, 3_600_000), default=2_000, show_default=True, help="In milliseconds."
)
@click.option("--attempts", type=click.IntRange(1), default=6, show_default=True, help="At a tenant that is busy.")
@click.option("--canary", "canaries", multiple=True, metavar="SLUG", help="Goes first, alone; may be repeated.")
@click.option("--share", type=click.FloatRange(0, 100), help="Then this per cent of the others, before the rest.")
@click.option(
    "--failure-budget",
    type=click.IntRange(0),
    help="Begin no more after so many failures.",
)
@click.option("--atomic", "is_atomic", is_flag=True, help="All in one db transaction, for small fleets.")
@click.option(
    "--wait", "wait_seconds", type=click.IntRange(0, 86_400), default=0, help="Seconds, for another migrator."
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
    attempts: int,
    canaries: tuple[str, ...],
    share: float | None,
    failure_budget: int | None,
    is_atomic: bool,
    wait_seconds: int,
    as_json: bool,
) -> None:
    if to is not None and shared_to is not None:
        stop("Give --to or --shared-to; one history is moved at a time.", BAD_ARGUMENTS)
    if "" in (to, shared_to) or (dry_run and as_json):
        stop("A revision has a number, and a dry run shows SQL, not JSON.", BAD_ARGUMENTS)
    options = MigrateOptions(
        slugs=slugs,
        to=to,
        shared_to=shared_to,
        jobs=jobs,
        lock_timeout_ms=lock_timeout,
        attempts=attempts,
        canaries=canaries,
        share_percent=share,
        failure_budget=failure_budget,
        is_atomic=is_atomic,
        wait_seconds=wait_seconds,
    )
    engine = admin_engine(admin_url_or_exit(settings_or_exit()))
    with refusals_exit():
        try:
            if dry_run:
                show_sql(engine, MIGRATIONS, options)
            else:
                _carry_out(engine, options, as_json=as_json)
        except RevisionRefused as error:
            stop(str(error), BAD_ARGUMENTS)


def _carry_out(engine: sa.Engine, options: MigrateOptions, *, as_json: bool) -> None:
    """Run, and report also what was done before an interruption or an error. Exits 1 if anything is not done."""
    outcomes: list[Outcome] = []
    watch = Watch(MIGRATIONS, is_quiet=as_json)
    try:
        with watch, closing(migrate(engine, MIGRATIONS, options, watch.plan)) as run:
            for outcome in run:
                outcomes.append(outcome)
                watch.tell(outcome)
    except KeyboardInterrupt:
        print("Stopped. What is not listed may be done: `migration_status` knows. Run it again.", file=sys.stderr)
        _show(outcomes, as_json=as_json)
        sys.exit(FAILED)
    except (MigrationError, DBAPIError):
        _show(outcomes, as_json=as_json)
        raise
    _show(outcomes, as_json=as_json)
    if any(outcome.has_failed for outcome in outcomes):
        sys.exit(FAILED)
    store_head_fingerprint(engine, MIGRATIONS)


def _show(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    """All of them for a machine; for people those that are not well, and all of a small fleet."""
    if as_json:
        return show_json([asdict(outcome) for outcome in outcomes])
    shown = [outcome for outcome in outcomes if outcome.has_failed or len(outcomes) <= _SHOWN_AT_MOST]
    rows = [(each.schema_name, each.before or "-", each.after or "-", _words(each)) for each in shown]
    if rows:
        show_table("Migrations", ("schema", "before", "after", "outcome"), rows)
    failed = sum(outcome.has_failed and not outcome.was_skipped for outcome in outcomes)
    skipped = sum(outcome.was_skipped for outcome in outcomes)
    print(f"{len(outcomes) - failed - skipped} schemas are there, {failed} failed, {skipped} were not reached.")
    return None


def _words(outcome: Outcome) -> str:
    if outcome.error is None:
        return "ok" if outcome.before != outcome.after else "nothing to do"
    state = f" (SQLSTATE {outcome.sqlstate})" if outcome.sqlstate else ""
    tried = f" {outcome.attempts} attempts." if outcome.attempts > 1 else ""
    blocked = f" In the way: {outcome.blocked_by}" if outcome.blocked_by else ""
    return f"{outcome.error}{state}{tried}{blocked}"


if __name__ == "__main__":
    main()
