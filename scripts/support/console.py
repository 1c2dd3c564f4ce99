"""What all scripts share: settings with exit code 2 if they are wrong, and results for people or machines."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import psycopg
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import ArgumentError, DBAPIError

from app.config import ConfigurationError, Settings, read_settings
from tenant_schemas.errors import NameRefused, TenancyError, TenantNotFound

FAILED = 1
BAD_ARGUMENTS = 2
_BOXED_AT_MOST = 100

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


@contextmanager
def refusals_exit() -> Iterator[None]:
    """Say why something was refused or failed, and exit: 2 for what can't be meant, 1 for what can't be done."""
    try:
        yield
    except (NameRefused, TenantNotFound, ArgumentError) as error:
        stop(str(error), BAD_ARGUMENTS)
    except UnicodeEncodeError:
        stop("An argument is no UTF-8.", BAD_ARGUMENTS)
    except TenancyError as error:
        stop(str(error), FAILED)
    except DBAPIError as error:
        stop(str(error.orig), FAILED)
    except psycopg.Error as error:
        stop(str(error), FAILED)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if len(texts) > _BOXED_AT_MOST:
        return _show_lines(title, [columns, *texts])
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")  # What looks like Rich's markup is data.
    for text in texts:
        table.add_row(*map(Text, text))
    return Console(width=None if sys.stdout.isatty() else 160).print(table)


def _show_lines(title: str, rows: Sequence[Sequence[str]]) -> None:
    """A box of a thousand rows takes most of a second."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(title)
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
