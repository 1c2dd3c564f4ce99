"""Shared by all commands: settings or exit code 2, errors as messages and exit codes, results as tables or JSON."""

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
from tenant_schemas.printable import printable

# Help texts: a blank line between paragraphs, also after the first one.
click.rich_click.TEXT_PARAGRAPH_LINEBREAKS = "\n\n"
click.rich_click.PADDING_HELPTEXT_FIRST_LINE = (0, 0, 1, 0)

FAILED = 1
BAD_ARGUMENTS = 2
_MAX_BOXED_ROWS = 100

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def settings_or_exit() -> Settings:
    """The settings of the environment. Exits 2 with a list of all faults."""
    try:
        return read_settings()
    except ConfigurationError as error:
        exit_with(str(error), BAD_ARGUMENTS)


def admin_url_or_exit(settings: Settings) -> str:
    """ADMIN_DATABASE_URL. Exits 2 if it is not set."""
    if not settings.admin_database_url:
        exit_with("ADMIN_DATABASE_URL is not set: set it to the URL of the migrator's login.", BAD_ARGUMENTS)
    return settings.admin_database_url


def exit_with(message: str, code: int) -> NoReturn:
    """Print the message on standard error and exit."""
    warn(message)
    sys.exit(code)


def warn(message: str) -> None:
    """Print on standard error. A message may quote foreign text: only its line feeds reach the terminal unchanged."""
    print(printable(message, "\n"), file=sys.stderr)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an error of the engine or the database as a message and exit: 2 for a wrong argument, 1 for a failure."""
    try:
        yield
    except (NameRefused, TenantNotFound, ArgumentError) as error:
        exit_with(str(error), BAD_ARGUMENTS)
    except UnicodeEncodeError:
        exit_with("An argument is not valid UTF-8.", BAD_ARGUMENTS)
    except TenancyError as error:
        exit_with(str(error), FAILED)
    except DBAPIError as error:
        exit_with(str(error.orig), FAILED)
    except psycopg.Error as error:
        exit_with(str(error), FAILED)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    texts = [["" if cell is None else printable(str(cell), "\n") for cell in row] for row in rows]
    if len(texts) > _MAX_BOXED_ROWS:
        return _show_lines(title, [columns, *texts])
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")  # As Text, so that Rich does not read data as markup.
    for text in texts:
        table.add_row(*map(Text, text))
    return Console(width=None if sys.stdout.isatty() else 160).print(table)


def _show_lines(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Plain lines for many rows: Rich takes most of a second to lay out a table of a thousand."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(title)
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
