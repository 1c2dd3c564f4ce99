"""The kind of group that all `flask` commands of the database belong to: an error is one line and exit code 1, never a
stack trace, and SIGTERM ends a command as Ctrl-C does.
"""

from typing import Any

import click
import psycopg
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from app.errors import ServiceError
from app.shutdown import ending_on_sigterm
from tenant_schemas.errors import TenancyError
from tenant_schemas.visits import short_reason


class CommandGroup(AppGroup):
    """Runs each command with the application's context."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with ending_on_sigterm():
                return super().invoke(ctx)
        except (TenancyError, ServiceError) as error:
            raise click.ClickException(str(error)) from None
        except (SQLAlchemyError, psycopg.Error) as error:
            raise click.ClickException(f"The database refused or does not answer: {short_reason(error)}") from None
