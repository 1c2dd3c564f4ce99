"""Shared by all commands: settings or exit code 2, errors as messages and exit codes, results as tables or JSON."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import psycopg
import rich_click as click
from alembic.util.exc import CommandError
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from app.api.spelling import camel_case
from app.config import BackupSettings, ConfigurationError, Settings, read_backup_settings, read_settings
from app.db import admin_engine
from app.errors import ServiceError
from app.secret_checks import refuse_wrong_secret, refuse_wrong_secret_at
from tenant_schemas.errors import NameRefused, SecretRefused, TenancyError, TenantNotFound
from tenant_schemas.migrations.history import sqlstate_of
from tenant_schemas.printable import printable
from tenant_schemas.sessions import LOCK_NOT_AVAILABLE, lock_holders
from tenant_schemas.tenant import SHARED_SCHEMA
from tenant_schemas.visits import LOCK_TIMEOUT_MS

# Help texts: a blank line between paragraphs, also after the first one.
click.rich_click.TEXT_PARAGRAPH_LINEBREAKS = "\n\n"
click.rich_click.PADDING_HELPTEXT_FIRST_LINE = (0, 0, 1, 0)

FAILED = 1
BAD_ARGUMENTS = 2
_MAX_BOXED_ROWS = 100

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
lock_timeout_option = click.option(
    "--lock-timeout",
    "lock_timeout_ms",
    type=click.IntRange(1, 3_600_000),
    default=LOCK_TIMEOUT_MS,
    show_default=True,
    help="Longest wait for the lock of one tenant's table, in milliseconds.",
)


def settings_or_exit(*, checks_secret: bool = True) -> Settings:
    """The settings of the environment. Exits 2 with a list of all faults, and for a TENANT_SECRET that is not that of
    the installation, unless the command itself tells of that.
    """
    try:
        settings = read_settings()
        if checks_secret:
            refuse_wrong_secret(settings)
    except (ConfigurationError, SecretRefused) as error:
        exit_with(str(error), BAD_ARGUMENTS)
    return settings


def backup_settings_or_exit() -> Settings | BackupSettings:
    """The settings of a machine that only takes backups, or else those of `settings_or_exit`. Exits 2 as that does."""
    try:
        settings = read_backup_settings()
        if settings is not None and settings.tenant_secret:
            refuse_wrong_secret_at(settings.backup_database_url, settings.tenant_secret)
    except (ConfigurationError, SecretRefused) as error:
        exit_with(str(error), BAD_ARGUMENTS)
    return settings or settings_or_exit()


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
    """Print an error of the engine, the database or the operating system as one line and exit: 2 for a wrong argument,
    1 for a failure.
    """
    try:
        yield
    except (NameRefused, TenantNotFound, ArgumentError) as error:
        exit_with(str(error), BAD_ARGUMENTS)
    except UnicodeEncodeError:
        exit_with("An argument is not valid UTF-8.", BAD_ARGUMENTS)
    except (TenancyError, ServiceError) as error:
        exit_with(str(error), FAILED)
    except (SQLAlchemyError, psycopg.Error) as error:
        exit_with(f"The database refused or does not answer: {one_line(error)}{_blocked_by(error)}", FAILED)
    except (OSError, CommandError) as error:
        exit_with(one_line(error), FAILED)


def _blocked_by(error: Exception) -> str:
    """The sessions that lock tables of `shared`, if a lock was not available and the migrator's login can name them."""
    if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
        return ""
    try:
        with admin_engine(read_settings().admin_database_url).connect() as connection:
            return f". Blocked by: {lock_holders(connection, SHARED_SCHEMA)}"
    except (ConfigurationError, SQLAlchemyError):
        return ""


def one_line(error: Exception) -> str:
    """An error's text on one line; PostgreSQL's own words with detail and hint, without the statement."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, psycopg.Error) and original.diag.message_primary:
        told = (original.diag.message_primary, original.diag.message_detail, original.diag.message_hint)
        return " ".join(" ".join(filter(None, told)).split())
    return " ".join(str(original).split()) or type(error).__name__


def show_json(value: Any) -> None:
    """Print the value as the API spells: the fields of a dataclass in camelCase, times in UTC with a Z."""
    print(json.dumps(spelled(value), indent=2, default=str))


def spelled(value: Any) -> Any:
    """The value in types of JSON. The keys of a dict stay: they are names of tenants, of columns, of figures."""
    if is_dataclass(value) and not isinstance(value, type):
        return {camel_case(each.name): spelled(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, dict):
        return {name: spelled(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(inner) for inner in value]
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


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
