"""Show the revision of the shared schema and of each tenant's schema, and how far each is behind the head of its
history.

Asks each schema, not only the registry. Lists the schemas that are behind, newer than this code or gone, that can't be
read, whose registry row names another revision or, with --drift, that have drifted, and counts the others. A schema
that is as the last --drift saw it is not described again, except with --full. With --runs it lists the last runs of
`migrate` instead, with the number of tenants for each outcome. With --run it shows one of them: each tenant's outcome,
attempts, SQLSTATE, error and the session that blocked it. A run whose process has died is shown as killed.

Examples:
    python -m scripts.migration_status --drift
    python -m scripts.migration_status --drift --full
    python -m scripts.migration_status --run 1f0c3a9b

Exit codes: 0 every schema is at its head, or newer than this code, and, with --drift, as the migrations make it; 1 a
schema is not, or the database can't be read; 2 bad arguments. --runs and --run exit 0 for a failed run too, and --run
exits 2 for an unknown one.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final

import rich_click as click
import sqlalchemy as sa

from app.db import admin_engine
from app.tenancy import MIGRATIONS
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    admin_url_or_exit,
    exit_with,
    json_option,
    lock_timeout_option,
    settings_or_exit,
    show_json,
    show_table,
    spelled,
)
from scripts.support.script import Script
from tenant_schemas.migrations.history import History, current_revision
from tenant_schemas.migrations.runner.report import Run, last_runs, tenants_in_run
from tenant_schemas.registry import all_tenants
from tenant_schemas.schema_diff.compare import Drift, find_drift
from tenant_schemas.schema_diff.revisions import revisions_of
from tenant_schemas.tenant import SHARED_SCHEMA, Tenant
from tenant_schemas.visits import Visitor

_MAX_OBJECTS_SHOWN: Final = 10
_RUNS_SHOWN: Final = 10
_ID_DIGITS_SHOWN: Final = 8
_UNKNOWN: Final[dict[str, Any]] = {"head": None, "behind": None, "newer": False}


@click.command(cls=Script, help=__doc__)
@click.option("--drift", "with_drift", is_flag=True, help="Compare each schema with what the migrations make.")
@click.option("--full", "is_full", is_flag=True, help="With --drift: describe also unchanged schemas again.")
@click.option("--all", "shows_all", is_flag=True, help="List all schemas or, with --run, all tenants.")
@click.option(
    "--runs",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=_RUNS_SHOWN,
    help="List this number of runs, the latest first; without a number the last 10.",
)
@click.option("--run", "run_id", metavar="ID", help="Show the run with this id, or whose id begins with this.")
@lock_timeout_option
@json_option
def main(
    *,
    with_drift: bool,
    is_full: bool,
    shows_all: bool,
    runs: int | None,
    run_id: str | None,
    lock_timeout_ms: int,
    as_json: bool,
) -> None:
    if is_full and not with_drift:
        exit_with("--full says how --drift looks: give --drift too.", BAD_ARGUMENTS)
    with admin_engine(admin_url_or_exit(settings_or_exit())).connect() as connection:
        if run_id:
            _show_run(connection, run_id, shows_all=shows_all, as_json=as_json)
        elif runs:
            _show_runs(last_runs(connection, runs), as_json=as_json)
        else:
            look = partial(_rows, with_drift=with_drift, is_full=is_full, lock_timeout_ms=lock_timeout_ms)
            rows = list(look(connection))
            _show_status(rows, with_drift=with_drift, shows_all=shows_all, as_json=as_json)


def _show_status(rows: Sequence[Mapping[str, Any]], *, with_drift: bool, shows_all: bool, as_json: bool) -> None:
    """Exits 1 if a schema is behind, gone, unreadable or not as the registry says, or has drifted."""
    if as_json:
        show_json(rows)
    else:
        _show_rows(rows, with_drift=with_drift, shows_all=shows_all)
    if not all(map(_is_current, rows)):
        sys.exit(FAILED)


def _rows(
    connection: sa.Connection, *, with_drift: bool, is_full: bool, lock_timeout_ms: int
) -> Iterator[dict[str, Any]]:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {lock_timeout_ms}")
    at = current_revision(connection, SHARED_SCHEMA)
    shared = {"slug": None, "schema": SHARED_SCHEMA, "status": None, "revision": at, "problem": None}
    yield shared | _distance(History.SHARED, at)
    tenants = all_tenants(connection) if at else []
    found = (
        find_drift(connection, MIGRATIONS, tenants, is_full=is_full, lock_timeout_ms=lock_timeout_ms)
        if with_drift
        else _without_drift(connection, tenants, lock_timeout_ms)
    )
    connection.commit()
    for revision, reason in found.unproven.items():
        warning = f"At {revision} tenants were only compared with each other, not with the history: {reason}."
        print(warning, file=sys.stderr)
    for tenant in tenants:
        row = _row(tenant, found)
        yield row | ({"drift": found.objects.get(tenant.schema_name, [])} if with_drift else {})


def _without_drift(connection: sa.Connection, tenants: Sequence[Tenant], lock_timeout_ms: int) -> Drift:
    """The revisions of the schemas, and the tenants that can't be read."""
    visitor = Visitor(connection, lock_timeout_ms=lock_timeout_ms)
    visitor.note_missing(tenants)
    return Drift({}, {}, revisions_of(visitor, tenants), visitor.failures)


def _row(tenant: Tenant, found: Drift) -> dict[str, Any]:
    """One tenant: its schema's revision or, if that can't be read, the registry's."""
    failure = found.failures.get(tenant.schema_name)
    revision = found.revisions.get(tenant.schema_name, None if failure and failure.is_gone else tenant.revision)
    names = {"slug": tenant.slug, "schema": tenant.schema_name, "status": tenant.status.value}
    problem = None
    if failure is not None:
        problem = "gone" if failure.is_gone else str(failure)
    elif revision != tenant.revision:
        problem = f"the registry says {tenant.revision}"
    distance = _UNKNOWN if revision is None else _distance(History.TENANT, revision)
    return {**names, "revision": revision, **distance, "problem": problem}


def _distance(history: History, revision: str | None) -> dict[str, Any]:
    """The head, and how far the revision is behind it. A `newer` one is not in this checkout's history yet."""
    is_newer = MIGRATIONS.history(history).is_older_than(revision)
    return _UNKNOWN | _distances(history).get(revision, {"newer": is_newer})


@cache
def _distances(history: History) -> Mapping[str | None, dict[str, Any]]:
    """By revision of this checkout's history: the head, and the number of revisions from there to the head."""
    revisions = [None, *(script.revision for script in MIGRATIONS.history(history).revisions)]
    return {revision: {"head": revisions[-1], "behind": behind} for behind, revision in enumerate(reversed(revisions))}


def _is_current(row: Mapping[str, Any]) -> bool:
    return (row["behind"] == 0 or row["newer"]) and not row["problem"] and not row.get("drift")


def _show_rows(rows: Sequence[Mapping[str, Any]], *, with_drift: bool, shows_all: bool) -> None:
    columns = ("slug", "schema", "status", "revision", "behind by", "problem", *(("drift",) if with_drift else ()))
    shown = [row for row in rows if shows_all or row["newer"] or not _is_current(row)]
    if shown:
        show_table("Revisions", columns, [_cells(row, with_drift=with_drift) for row in shown])
    newer = sum(row["newer"] for row in rows)
    current = sum(_is_current(row) and not row["newer"] for row in rows)
    heads = f"{SHARED_SCHEMA} {MIGRATIONS.head(History.SHARED)}, tenants {MIGRATIONS.head(History.TENANT)}"
    drifted = ", none of them drifted" if with_drift else ""
    print(f"{current} of {len(rows)} schemas are at their head{drifted} ({heads}).")
    if newer:
        print(f"{newer} are newer than this code: a later release has migrated them.")


def _cells(row: Mapping[str, Any], *, with_drift: bool) -> list[object]:
    behind = "not in this history" if row["behind"] is None and row["revision"] else row["behind"]
    behind = "newer than this code" if row["newer"] else behind
    cells = [row["slug"], row["schema"], row["status"], row["revision"] or "-", behind, row["problem"]]
    if with_drift:
        objects = row.get("drift") or []
        more = f" and {len(objects) - _MAX_OBJECTS_SHOWN} more" if len(objects) > _MAX_OBJECTS_SHOWN else ""
        cells.append(", ".join(objects[:_MAX_OBJECTS_SHOWN]) + more)
    return cells


def _show_runs(runs: Sequence[Run], *, as_json: bool) -> None:
    if as_json:
        return show_json(runs)
    if not runs:
        print("No run is on record.")
        return None
    columns = ("run", "started", "seconds", "started by", "target", "status", "tenants")
    return show_table("Runs", columns, [_run_cells(run) for run in runs])


def _run_cells(run: Run) -> list[object]:
    seconds = f"{(run.finished_at - run.started_at).total_seconds():.1f}" if run.finished_at else "-"
    counts = ", ".join(f"{count} {status}" for status, count in sorted(run.counts.items()))
    started = f"{run.started_at:%Y-%m-%d %H:%M:%S%z}"
    return [str(run.id)[:_ID_DIGITS_SHOWN], started, seconds, run.started_by, run.target, run.status, counts or "none"]


def _show_run(connection: sa.Connection, run_id: str, *, shows_all: bool, as_json: bool) -> None:
    runs = last_runs(connection, 1, run_id.lower())
    if not runs:
        exit_with(f"There is no run whose id begins with {run_id!r}: --runs lists the runs.", BAD_ARGUMENTS)
    tenants = tenants_in_run(connection, runs[0])
    if as_json:
        return show_json(spelled(runs[0]) | {"tenants": tenants})
    _show_runs(runs, as_json=False)
    shown = [tenant for tenant in tenants if shows_all or tenant.status != "done" or tenant.attempts > 1]
    names = ("slug", "wave", "revision_before", "status", "attempts", "sqlstate", "error", "blocked_by")
    rows = [[getattr(each, name) for name in names] for each in shown]
    columns = ("slug", "wave", "from", "status", "attempts", "SQLSTATE", "error", "blocked by")
    if rows:
        show_table("Tenants", columns, rows)
    if len(shown) < len(tenants):
        print(f"{len(tenants) - len(shown)} of {len(tenants)} tenants were done at the first attempt.")
    return None


if __name__ == "__main__":
    main()
