"""`flask members …`: users and the tenants to which they belong."""

from uuid import UUID

import click
from flask.cli import AppGroup
from psycopg import Error

from app.audit.service import commit_entry
from app.auth.actors import SYSTEM
from app.auth.passwords import hash_password
from app.auth.schemas import LoginSchema
from app.auth.sessions import end_other_sessions
from app.db import db
from app.errors import ServiceError
from app.members.former_members import forget_expired, forget_former_member
from app.members.service import add_membership
from app.users import service as users
from app.users.models import MEMBERSHIP_ROLES, Role
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import shared_side, tenant_context

members = AppGroup("members", help="Users and the tenants to which they belong.")


@members.command("add")
@click.argument("email")
@click.option("--tenant", "slug", required=True, help="The tenant's slug.")
@click.option(
    "--role", type=click.Choice([role.value for role in MEMBERSHIP_ROLES]), default=Role.MEMBER.value, show_default=True
)
@click.option("--name", help="The name of a new user. Default: the address.")
@click.option("--password", envvar="MEMBER_PASSWORD", help="The password of a new user. Prompted for if not given.")
def add_member(email: str, slug: str, role: str, name: str | None, password: str | None) -> None:
    """Add a user to a tenant, or change the user's role there. Creates the user if the address is new."""
    try:
        with tenant_context(slug) as tenant:
            pass
        with shared_side():
            user = users.find_user(email)
            if user is None:
                password = password or click.prompt("Password", hide_input=True, confirmation_prompt=True)
                _refuse_what_login_refuses(email, password)
                user = users.add_user(email, name or email, hash_password(password))
            add_membership(user, tenant, Role(role))
            db.session.flush()
            commit_entry(tenant, SYSTEM, "member.add", subject=str(user.id), after={"role": role})
            db.session.commit()
    except (TenancyError, ServiceError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{email} is {role} in {slug}")


@members.command("set-password")
@click.argument("email")
@click.option("--password", envvar="MEMBER_PASSWORD", help="Prompted for if not given.")
def set_password(email: str, password: str | None) -> None:
    """Set a user's password and end all sessions of the user. Users that an admin added over HTTP have no password
    before.
    """
    password = password or click.prompt("Password", hide_input=True, confirmation_prompt=True)
    _refuse_what_login_refuses(email, password)
    try:
        with shared_side():
            user = users.set_password(email, hash_password(password))
            end_other_sessions(user.id, None)
            db.session.commit()
    except ServiceError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{email} has a new password")


@members.command("forget-former")
@click.option("--tenant", "slug", help="With --user: the tenant's slug.")
@click.option("--user", "user_id", type=click.UUID, help="Forget this former member of the tenant, at once.")
@click.option(
    "--batch",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Most to forget in one db transaction.",
)
def forget_former(slug: str | None, user_id: UUID | None, batch: int) -> None:
    """Forget the addresses and names of former members whose time is over (the tenant's setting former_member_days, ten
    years by default), and print their number. Run it daily. With --tenant and --user, forget one former member.

    Wallets, movements and the audit log keep the user's id.
    """
    if (slug is None) != (user_id is None):
        raise click.UsageError("Give --tenant and --user together, or neither.")
    try:
        if slug is None or user_id is None:
            click.echo(f"{forget_expired(batch=batch)} former members forgotten")
            return
        with tenant_context(slug) as tenant:
            is_forgotten = forget_former_member(tenant, user_id)
            if is_forgotten:
                commit_entry(tenant, SYSTEM, "member.forget", subject=str(user_id))
    except (TenancyError, Error) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{user_id} is forgotten in {slug}" if is_forgotten else f"{user_id} is no former member of {slug}")


def _refuse_what_login_refuses(email: str, password: str) -> None:
    """Raises BadParameter for an address or a password with which the user could not log in."""
    for field, faults in LoginSchema().validate({"email": email, "password": password}).items():
        raise click.BadParameter(" ".join(faults), param_hint=str(field))
