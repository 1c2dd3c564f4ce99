"""What all scripts share: settings with exit code 2 if they are wrong, and results for people or machines."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NoReturn

import rich_click as click
from rich.console import Console
from rich.table import Table

from app.config import ConfigurationError, Settings, read_settings
from tenant_schemas.migrations import Outcome

FAILED = 1
BAD_ARGUMENTS = 2

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def settings_or_exit() -> Settings:
    try:
        return read_settings()
    except ConfigurationError as error:
        stop(str(error), BAD_ARGUMENTS)


def admin_url_or_exit(settings: Settings) -> str:
    if not settings.admin_database_url:
        stop("Set ADMIN_DATABASE_URL: scripts log in as the migrator.", BAD_ARGUMENTS)
    return settings.admin_database_url


def stop(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(code)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def show_outcomes(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    """Print what became of each schema, and exit 1 if any failed."""
    if as_json:
        show_json([asdict(outcome) for outcome in outcomes])
    else:
        rows = [(each.schema_name, each.before or "-", each.after or "-", each.error or "ok") for each in outcomes]
        show_table("Migrations", ("schema", "before", "after", "outcome"), rows)
    if any(outcome.has_failed for outcome in outcomes):
        sys.exit(FAILED)
