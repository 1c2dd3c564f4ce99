"""`flask auth …`: housekeeping of sessions."""

import click
from flask.cli import AppGroup
from psycopg import Error

from app.auth.sessions import prune_sessions
from app.mail.outbox import prune_mails

auth = AppGroup("auth", help="Sessions and their refresh tokens.")


@auth.command("prune")
@click.option(
    "--days",
    type=click.IntRange(0, 36_500),
    default=30,
    show_default=True,
    help="Delete sessions that ended, and mails that expired, this many days ago.",
)
def prune(days: int) -> None:
    """Delete ended sessions with their refresh tokens and expired mails with their tokens, and print the number of
    each. Run it daily: nothing else removes rows from these tables.
    """
    try:
        sessions, mails = prune_sessions(days), prune_mails(days)
    except Error as error:
        raise click.ClickException(f"The database refused or does not answer: {error}") from None
    click.echo(f"{sessions} sessions and {mails} mails deleted")
