"""`flask auth …`: housekeeping of sessions."""

import click

from app.auth.sessions import prune_sessions
from app.command_group import CommandGroup
from app.mail.outbox import prune_mails

auth = CommandGroup("auth", help="Sessions and their refresh tokens.")


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
    sessions, mails = prune_sessions(days), prune_mails(days)
    click.echo(f"{sessions} sessions and {mails} mails deleted")
