"""Prints the plan of a run of migrations: the tenants of each wave, each step with its table locks, and the SQL."""

from collections import defaultdict
from collections.abc import Iterator

import sqlalchemy as sa

from tenant_schemas.migrations.history import History, Migrations, current_revision
from tenant_schemas.migrations.render import Step
from tenant_schemas.migrations.runner import MigrateOptions, Plan, TenantMigration, make_plan
from tenant_schemas.sql_lint.lock_levels import locks_of
from tenant_schemas.tenant import SHARED_SCHEMA

_MAX_SLUGS_SHOWN = 10


def plan_lines(migrations: Migrations, plan: Plan) -> Iterator[str]:
    """One line for each wave, then one for each step that a tenant takes."""
    steps: dict[str, Step] = {}
    for number, wave in enumerate(plan.waves, start=1):
        revisions = sorted({work.tenant.revision for work in wave})
        yield f"Wave {number}: {_slugs(wave)}, from {', '.join(revisions)} to {plan.target}."
        for work in wave:
            steps |= {f"{step.before} {step.after}": step for step in work.steps}
    for step in sorted(steps.values(), key=lambda step: step.revision):
        yield from _step_lines(migrations, History.TENANT, step)


def show_sql(engine: sa.Engine, migrations: Migrations, options: MigrateOptions) -> None:
    """Print the SQL of a run, with comments that name the tenants. Tenants with the same steps share one listing.
    Changes nothing.
    """
    with engine.connect() as connection:
        if options.moves_shared:
            revision = current_revision(connection, SHARED_SCHEMA)
            _print_shared(migrations, revision, options.shared_to)
            if revision is None:
                return
        plan = make_plan(connection, migrations, options)
    for outcome in plan.without_steps:
        if reason := outcome.error or outcome.note:
            print(f"-- {outcome.slug}: {reason}")
    works_by_steps: dict[tuple[str | None, ...], list[TenantMigration]] = defaultdict(list)
    for work in plan.tenant_migrations:
        works_by_steps[tuple(step.before for step in work.steps)].append(work)
    stay = len(plan.without_steps)
    print(f"-- Tenants: {len(plan.tenant_migrations)} to migrate to {plan.target}, {stay} with no steps.")
    for works in works_by_steps.values():
        print(f"-- {_slugs(works)}: {len(works[0].steps)} steps from {works[0].tenant.revision}.")
        for step in works[0].steps:
            _print_step(migrations, History.TENANT, step)


def _print_shared(migrations: Migrations, revision: str | None, to: str | None) -> None:
    if to is None and (note := migrations.newer_note(History.SHARED, revision)):
        print(f"-- {SHARED_SCHEMA}: {note}")
        return
    steps = migrations.steps(History.SHARED, revision, to)
    print(f"-- {SHARED_SCHEMA}: {len(steps)} steps from {revision or 'the start'}.")
    for step in steps:
        _print_step(migrations, History.SHARED, step)


def _print_step(migrations: Migrations, history: History, step: Step) -> None:
    for line in _step_lines(migrations, history, step):
        print(f"-- {line}")
    if step.concurrent:
        print(f"-- Outside a db transaction:\n{step.concurrent.statement.text};\n")
        return
    print(step.sql or f"-- Revision {step.revision} runs Python in each schema: see its file.\n")


def _step_lines(migrations: Migrations, history: History, step: Step) -> Iterator[str]:
    earlier = "".join(before.sql for before in migrations.steps(history, None, step.before)) if step.before else ""
    sql = step.concurrent.statement.text if step.concurrent else step.sql
    locks = ", ".join(f"{lock.table or lock.statement}: {lock.mode}" for lock in locks_of(sql, earlier))
    way = f"{step.before or 'the start'} -> {step.after or 'the start'}"
    yield f"{way}: {step.title} Locks: {locks or 'no existing table'}."


def _slugs(works: "list[TenantMigration] | tuple[TenantMigration, ...]") -> str:
    """The slugs, or the first ones and the number of the others."""
    shown = ", ".join(work.tenant.slug for work in works[:_MAX_SLUGS_SHOWN])
    return shown if len(works) <= _MAX_SLUGS_SHOWN else f"{shown} and {len(works) - _MAX_SLUGS_SHOWN} more"
