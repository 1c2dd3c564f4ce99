"""`flask auth …`: housekeeping of sessions."""

import click
from flask.cli import AppGroup
from psycopg import Error

from app.auth.sessions import prune_sessions

auth = AppGroup("auth", help="Sessions and their refresh tokens.")


@auth.command("prune")
@click.option(
    "--days",
    type=click.IntRange(0, 36_500),
    default=30,
    show_default=True,
    help="Delete sessions that ended this many days ago.",
)
def prune(days: int) -> None:
    """Delete ended sessions and their refresh tokens, and print the number of sessions. Run it daily: nothing else
    removes rows from these tables.
    """
    try:
        count = prune_sessions(days)
    except Error as error:
        raise click.ClickException(f"The database refused or does not answer: {error}") from None
    click.echo(f"{count} sessions deleted")
