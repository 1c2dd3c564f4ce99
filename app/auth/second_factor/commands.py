"""`flask users …`: what an operator does for a user."""

import click
import structlog

from app.auth.second_factor.service import switch_off
from app.command_group import CommandGroup
from app.db import db
from app.users.errors import MemberNotFound
from app.users.service import find_user
from tenant_schemas.flask import shared_side

log = structlog.get_logger(__name__)

users = CommandGroup("users", help="Users of the installation.")


@users.command("remove-second-factor")
@click.argument("email")
def remove_second_factor(email: str) -> None:
    """Switch off the second factor of a user who has lost it. The service's log notes it, and the user gets a mail.
    Make sure before that the request comes from the user.
    """
    with shared_side():
        user = find_user(email)
        if user is None:
            raise MemberNotFound(f"There is no user with the address {email}.")
        user_id = user.id
        switch_off(user_id)
        db.session.commit()
    log.warning("second_factor_removed", user_id=str(user_id), by="command")
    click.echo(f"{email} has no second factor")
