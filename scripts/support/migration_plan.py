"""The plan of a run of migrations in words: who is behind, by what, and which tables are locked how; and the SQL."""

from collections import defaultdict
from collections.abc import Iterator

import sqlalchemy as sa

from tenant_schemas.migrations.history import History, Migrations, current_revision
from tenant_schemas.migrations.render import Step
from tenant_schemas.migrations.runner import MigrateOptions, Plan, TenantMigration, make_plan
from tenant_schemas.sql_lint.lock_levels import locks_of
from tenant_schemas.tenant import SHARED_SCHEMA

_NAMED_AT_MOST = 10


def plan_lines(migrations: Migrations, plan: Plan) -> Iterator[str]:
    """One line for each wave, and for each step that somebody takes."""
    steps: dict[str, Step] = {}
    for number, wave in enumerate(plan.waves, start=1):
        at = sorted({work.tenant.revision for work in wave})
        yield f"Wave {number}: {_names(wave)}, from {', '.join(at)} to {plan.target}."
        for work in wave:
            steps |= {f"{step.before} {step.after}": step for step in work.steps}
    for step in sorted(steps.values(), key=lambda step: step.revision):
        yield from _step_lines(migrations, History.TENANT, step)


def show_sql(engine: sa.Engine, migrations: Migrations, options: MigrateOptions) -> None:
    """Print what a run would do: comments that say to whom, and the SQL, each way once. Changes nothing."""
    with engine.connect() as connection:
        if options.moves_shared:
            at = current_revision(connection, SHARED_SCHEMA)
            steps = migrations.steps(History.SHARED, at, options.shared_to)
            print(f"-- {SHARED_SCHEMA}: {len(steps)} steps from {at or 'nothing'}.")
            for step in steps:
                _print_step(migrations, History.SHARED, step)
            if at is None:
                return
        plan = make_plan(connection, migrations, options)
    for outcome in plan.without_steps:
        if outcome.error:
            print(f"-- {outcome.slug}: {outcome.error}")
    ways: dict[tuple[str | None, ...], list[TenantMigration]] = defaultdict(list)
    for work in plan.tenant_migrations:
        ways[tuple(step.before for step in work.steps)].append(work)
    print(f"-- Tenants: {len(plan.tenant_migrations)} to go to {plan.target}, {len(plan.without_steps)} to stay.")
    for works in ways.values():
        print(f"-- {_names(works)}: {len(works[0].steps)} steps from {works[0].tenant.revision}.")
        for step in works[0].steps:
            _print_step(migrations, History.TENANT, step)


def _print_step(migrations: Migrations, history: History, step: Step) -> None:
    for line in _step_lines(migrations, history, step):
        print(f"-- {line}")
    print(step.sql or f"-- Revision {step.revision} runs Python in each schema; see its file.\n")


def _step_lines(migrations: Migrations, history: History, step: Step) -> Iterator[str]:
    earlier = "".join(before.sql for before in migrations.steps(history, None, step.before)) if step.before else ""
    locks = ", ".join(f"{lock.table or lock.statement}: {lock.mode}" for lock in locks_of(step.sql, earlier))
    yield f"{step.before or 'nothing'} -> {step.after or 'nothing'}: {step.title} Locks: {locks or 'nothing old'}."


def _names(works: "list[TenantMigration] | tuple[TenantMigration, ...]") -> str:
    """The slugs, or the first of them and how many more."""
    shown = ", ".join(work.tenant.slug for work in works[:_NAMED_AT_MOST])
    return shown if len(works) <= _NAMED_AT_MOST else f"{shown} and {len(works) - _NAMED_AT_MOST} more"
