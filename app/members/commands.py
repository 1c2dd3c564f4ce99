"""`flask members …`: users and the tenants to which they belong.

The commands keep the rules of the HTTP routes: for addresses, for passwords, and for the API keys of an admin.
"""

from uuid import UUID

import click
from marshmallow import ValidationError

from app.accounts.schemas import MAX_NAME_LENGTH
from app.api.text_fields import Name
from app.api_keys.handover import KeyChoice
from app.audit.service import commit_entry
from app.auth.actors import SYSTEM
from app.auth.membership_lock import lock_members, role_of
from app.auth.passwords import hash_password, refuse_obvious_password
from app.auth.schemas import NewPassword
from app.auth.service import follow_password_change
from app.command_group import CommandGroup
from app.db import db
from app.errors import Invalid
from app.members.former_members import forget_expired, forget_former_member
from app.members.invitations.service import invite, prune_invitations
from app.members.service import add_membership, end_admins_right
from app.users import service as users
from app.users.errors import MemberNotFound, UserExists
from app.users.models import MEMBERSHIP_ROLES, Role, User
from app.users.schemas import EmailAddress
from tenant_schemas.flask import shared_side, tenant_context
from tenant_schemas.tenant import Tenant

REVOKE = "revoke"

members = CommandGroup("members", help="Users and the tenants to which they belong.")


@members.command("add")
@click.argument("email")
@click.option("--tenant", "slug", required=True, help="The tenant's slug.")
@click.option(
    "--role", type=click.Choice([role.value for role in MEMBERSHIP_ROLES]), default=Role.MEMBER.value, show_default=True
)
@click.option("--name", help="The name of a new user. Default: the address.")
@click.option("--password", envvar="MEMBER_PASSWORD", help="The password of a new user. Prompted for if not given.")
@click.option("--invite", "is_invited", is_flag=True, help="Send an invitation by mail; the user chooses the password.")
@click.option(
    "--api-keys",
    help="If an admin becomes less: `revoke` their valid API keys, or the address of the admin who answers for them.",
)
def add_member(
    *, email: str, slug: str, role: str, name: str | None, password: str | None, is_invited: bool, api_keys: str | None
) -> None:
    """Add a user to a tenant, or change the user's role there. Creates the user if the address is new.

    With --invite, the membership exists from the acceptance on. A password for an address that exists is an error: set
    it with `flask members set-password`.
    """
    if is_invited and password:
        raise click.UsageError("Give --invite or a password, not both: the invited user chooses the password.")
    with tenant_context(slug) as tenant:
        _refuse_wrong_name(name)
        if is_invited:
            _refuse_wrong_address(email)
            invite(email, name, Role(role), actor=SYSTEM)
            db.session.commit()
            click.echo(f"{email} is invited to {slug} as {role}")
            return
    with shared_side():
        _put_member(tenant, email, Role(role), name=name, password=password, api_keys=api_keys)
        db.session.commit()
    click.echo(f"{email} is {role} in {slug}")


@members.command("set-password")
@click.argument("email")
@click.option("--password", envvar="MEMBER_PASSWORD", help="Prompted for if not given.")
def set_password(email: str, password: str | None) -> None:
    """Set a user's password and end all sessions of the user, who gets a mail. Users that an admin added over HTTP have
    no password before.
    """
    with shared_side():
        user = users.find_user(email)
        if user is None:
            raise MemberNotFound(f"There is no user with the address {email}.")
        password = password or click.prompt("Password", hide_input=True, confirmation_prompt=True)
        _refuse_wrong_password(password, user.email, user.name)
        user = users.set_password(email, hash_password(password))
        follow_password_change(user.id, user.email, None)
        db.session.commit()
    click.echo(f"{email} has a new password")


def _put_member(
    tenant: Tenant, email: str, role: Role, *, name: str | None, password: str | None, api_keys: str | None
) -> None:
    user = users.find_user(email)
    if user is not None and password:
        raise UserExists(f"{email} exists already. Leave the password out, or change it with `set-password`.")
    if user is None:
        user = _new_user(email, name, password)
    else:
        lock_members(tenant, SYSTEM)
    if role is not Role.ADMIN and role_of(tenant, user.id) is Role.ADMIN:
        choice, keeper = _choice(tenant, user.id, api_keys)
        end_admins_right(tenant, user.id, choice, keeper=keeper, actor=SYSTEM)
    add_membership(user, tenant, role)
    db.session.flush()
    commit_entry(tenant, SYSTEM, "member.add", subject=str(user.id), after={"role": role})


def _new_user(email: str, name: str | None, password: str | None) -> User:
    _refuse_wrong_address(email)
    password = password or click.prompt("Password", hide_input=True, confirmation_prompt=True)
    _refuse_wrong_password(password, email, name)
    return users.add_user(email, name or email, hash_password(password))


def _choice(tenant: Tenant, user_id: UUID, api_keys: str | None) -> tuple[KeyChoice | None, UUID | None]:
    """What becomes of the keys, and who answers for them then. Raises MemberNotFound for somebody who is no admin."""
    if api_keys is None or api_keys == REVOKE:
        return (KeyChoice.REVOKE if api_keys else None), None
    keeper = users.find_user(api_keys)
    if keeper is None or keeper.id == user_id or role_of(tenant, keeper.id) is not Role.ADMIN:
        raise MemberNotFound(f"{api_keys} is no other admin of {tenant.slug}, and can't answer for API keys.")
    return KeyChoice.KEEP, keeper.id


def _refuse_wrong_address(email: str) -> None:
    """Raises BadParameter for an address that the HTTP routes refuse."""
    try:
        EmailAddress().deserialize(email)
    except ValidationError as error:
        raise click.BadParameter(" ".join(error.messages), param_hint="email") from None


def _refuse_wrong_name(name: str | None) -> None:
    """Raises BadParameter for a name that the HTTP routes refuse."""
    try:
        if name is not None:
            Name(max_length=MAX_NAME_LENGTH).deserialize(name)
    except ValidationError as error:
        raise click.BadParameter(" ".join(error.messages), param_hint="--name") from None


def _refuse_wrong_password(password: str, email: str, name: str | None) -> None:
    """Raises BadParameter for a password that the HTTP routes refuse."""
    try:
        NewPassword().deserialize(password)
        refuse_obvious_password(password, email, name, field="password")
    except ValidationError as error:
        raise click.BadParameter(" ".join(error.messages), param_hint="password") from None
    except Invalid as error:
        raise click.BadParameter(error.detail, param_hint="password") from None


@members.command("prune-invitations")
@click.option(
    "--days",
    type=click.IntRange(0, 36_500),
    default=30,
    show_default=True,
    help="Delete invitations that were accepted or revoked, or expired, this many days ago.",
)
def prune(days: int) -> None:
    """Delete invitations of all tenants that are over, with their mails, and print their number. Run it daily.

    Memberships and the audit log stay.
    """
    click.echo(f"{prune_invitations(days)} invitations deleted")


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

    Their invitations are deleted. Who has a valid invitation is kept until it is over, unless --user names them.
    Wallets, movements and the audit log keep the user's id.
    """
    if (slug is None) != (user_id is None):
        raise click.UsageError("Give --tenant and --user together, or neither.")
    if slug is None or user_id is None:
        click.echo(f"{forget_expired(batch=batch)} former members forgotten")
        return
    with tenant_context(slug) as tenant:
        is_forgotten = forget_former_member(tenant, user_id)
        if is_forgotten:
            commit_entry(tenant, SYSTEM, "member.forget", subject=str(user_id))
    click.echo(f"{user_id} is forgotten in {slug}" if is_forgotten else f"{user_id} is no former member of {slug}")
