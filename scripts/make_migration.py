"""Draft the next revision of a history by comparing the models with a throw-away server at the head.

A draft that squawk or a rule of this project finds unsafe is not kept: each unsafe statement is printed with its rule.
Read a draft before you commit it, move its SQL into a .sql file beside it if it is longer than a line, and grant the
roles what they need. The current.sql of the history is written too: run `python -m scripts.write_current_sql` again
after each change of the revision.

Example:
    python -m scripts.make_migration tenant "add nickname to wallets"

Prints the files that it wrote.

Exit codes: 0 the draft is written; 1 it is unsafe, or squawk is not installed; 2 bad arguments.
"""

from pathlib import Path

import rich_click as click

import app  # noqa: F401  Importing it registers the tables of all features.
from app.tenancy import MIGRATIONS
from app.users.models import User
from app.wallets.models import Wallet
from scripts.support.console import FAILED, exit_with
from scripts.support.current_sql.files import write_stale_files
from scripts.support.current_sql.fold import NotFolded
from scripts.support.migration_review import SquawkMissing, find_squawk, review_steps
from scripts.support.scratch_installation import scratch_installation
from scripts.support.script import Script
from tenant_schemas.errors import RevisionRefused
from tenant_schemas.migrations.history import History
from tenant_schemas.search_path import bind_migration
from tenant_schemas.tenant import SHARED_SCHEMA


@click.command(cls=Script, help=__doc__)
@click.argument("history", type=click.Choice(["tenant", "shared"]))
@click.argument("message")
@click.option("--keep-unsafe", is_flag=True, help="Keep an unsafe draft, to rewrite it: `make check` refuses it.")
def main(history: str, message: str, *, keep_unsafe: bool) -> None:
    try:
        find_squawk()
    except SquawkMissing as error:
        exit_with(str(error), FAILED)
    line = History[history.upper()]
    paths = _draft(line, message)
    violations = _violations(line)
    for violation in violations:
        print(violation)
    if violations and not keep_unsafe:
        for path in paths:
            path.unlink()
        exit_with(
            "The draft is unsafe and was not kept. Change the models in smaller steps, or see --keep-unsafe.", FAILED
        )
    try:
        paths = [*write_stale_files(MIGRATIONS), *paths]
    except (NotFolded, RevisionRefused) as error:
        print(error)
    for path in paths:
        print(path)


def _draft(history: History, message: str) -> list[Path]:
    with scratch_installation() as (engine, tenant), engine.begin() as connection:
        schema_name = tenant.schema_name if history is History.TENANT else SHARED_SCHEMA
        bind_migration(connection, schema_name)
        metadata = Wallet.metadata if history is History.TENANT else User.metadata
        return MIGRATIONS.draft(connection, history, metadata, message)


def _violations(history: History) -> list[str]:
    """What is wrong with the last revision, the draft."""
    try:
        steps = MIGRATIONS.steps(history, None)
    except RevisionRefused as error:
        return [str(error)]
    return [str(violation) for violation in review_steps(history, steps, "revision ", first=MIGRATIONS.head(history))]


if __name__ == "__main__":
    main()
