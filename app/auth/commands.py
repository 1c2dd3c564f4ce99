"""`flask auth …`: housekeeping of sessions."""

import click
from flask.cli import AppGroup
from psycopg import Error

from app.auth.sessions import prune_sessions

auth = AppGroup("auth", help="Sessions and their refresh tokens.")


@auth.command("prune")
@click.option("--days", type=click.IntRange(0, 36_500), default=30, show_default=True, help="Over for so many days.")
def prune(days: int) -> None:
    """Delete the sessions that were over long ago, with their refresh tokens. To be run once a day or so: nothing else
    makes these tables smaller.
    """
    try:
        count = prune_sessions(days)
    except Error as error:
        raise click.ClickException(f"The database can't be asked: {error}") from None
    click.echo(f"{count} sessions deleted")
