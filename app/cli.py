"""`flask wallets …` and `flask members …`: the commands that need a healthy application."""

import sys

import click
from flask import Flask
from flask.cli import AppGroup
from sqlalchemy.exc import SQLAlchemyError

from app.audit.models import SYSTEM
from app.audit.service import note_in
from app.auth.commands import auth
from app.auth.passwords import hash_password
from app.auth.schemas import LoginSchema
from app.auth.sessions import end_other_sessions
from app.db import db
from app.errors import ServiceError
from app.holds import service as holds
from app.ledger.audit import AuditReport, Finding, audit_ledger
from app.members import service as members
from app.members.models import MEMBERSHIP_ROLES, Role
from app.opening_balances.commands import COMMANDS as OPENINGS
from tenant_schemas.errors import TenancyError
from tenant_schemas.flask import connections, shared_side, tenant_context
from tenant_schemas.registry import all_tenants
from tenant_schemas.tenant import Tenant

wallets = AppGroup("wallets", help="Wallets and their ledger.")
members_group = AppGroup("members", help="Users and where they belong.")


def init_app(app: Flask) -> None:
    for command in OPENINGS:
        wallets.add_command(command)
    app.cli.add_command(auth)
    app.cli.add_command(wallets)
    app.cli.add_command(members_group)


@wallets.command("audit")
@click.option("--tenant", "slugs", multiple=True, help="Only this tenant; may be repeated.")
def audit(slugs: tuple[str, ...]) -> None:
    """Recompute every chain, balance and trial balance. Exits 1 if something does not hold, and says where."""
    try:
        with connections().shared.begin() as connection:
            slugs = slugs or tuple(tenant.slug for tenant in all_tenants(connection))
    except SQLAlchemyError as error:
        raise click.UsageError(f"The database can't be asked: {error.args[0]}\nIs it there, and migrated?") from None
    failed = [slug for slug in slugs if not _audit_one(slug)]
    click.echo(
        f"{len(slugs)} tenants audited, {len(failed)} with findings" + (f": {', '.join(failed)}" if failed else "")
    )
    sys.exit(1 if failed else 0)


def _audit_one(slug: str) -> bool:
    try:
        with tenant_context(slug):
            report = audit_ledger()
    except TenancyError as error:
        raise click.ClickException(str(error)) from None
    except SQLAlchemyError as error:
        db.session.rollback()
        report = AuditReport(0, 0, (Finding(None, None, f"the audit could not be made: {error.args[0]}"),))
    _print(slug, report)
    return not report.findings


def _print(slug: str, report: AuditReport) -> None:
    verdict = "sound" if not report.findings else "NOT SOUND"
    click.echo(f"{slug}: {verdict}: {report.wallets} wallets, {report.transactions} transactions")
    for finding in report.findings:
        where = f"wallet {finding.wallet_id} seq {finding.seq}" if finding.wallet_id else "tenant"
        click.echo(f"  {where}: {finding.text}")


@wallets.command("expire-holds")
def expire_holds() -> None:
    """Note the holds whose time is over, in every active tenant. They block no funds even before that. Exits 1 if a
    tenant could not be asked.
    """
    with connections().shared.begin() as connection:
        tenants = [tenant for tenant in all_tenants(connection) if tenant.is_active]
    failed = [tenant.slug for tenant in tenants if not _expire_holds_of(tenant)]
    sys.exit(1 if failed else 0)


def _expire_holds_of(tenant: Tenant) -> bool:
    try:
        with tenant_context(tenant):
            count = holds.expire_holds()
    except (SQLAlchemyError, TenancyError) as error:
        db.session.rollback()
        click.echo(f"{tenant.slug}: failed: {error.args[0]}", err=True)
        return False
    click.echo(f"{tenant.slug}: {count} wallets had holds that are over")
    return True


@members_group.command("add")
@click.argument("email")
@click.option("--tenant", "slug", required=True, help="The tenant to belong to.")
@click.option(
    "--role", type=click.Choice([role.value for role in MEMBERSHIP_ROLES]), default=Role.MEMBER.value, show_default=True
)
@click.option("--name", help="The person's name, if the user is new. Default: the address.")
@click.option("--password", envvar="MEMBER_PASSWORD", help="For a new user; asked for if not given.")
def add_member(email: str, slug: str, role: str, name: str | None, password: str | None) -> None:
    """Let a user into a tenant, or change their role there; a new user is made."""
    try:
        with tenant_context(slug) as tenant:
            pass
        with shared_side():
            user = members.find_user(email)
            if user is None:
                password = password or click.prompt("Password", hide_input=True, confirmation_prompt=True)
                _refuse_what_login_refuses(email, password)
                user = members.add_user(email, name or email, hash_password(password))
            members.add_membership(user, tenant, Role(role))
            db.session.flush()
            note_in(tenant, SYSTEM, "member.add", subject=str(user.id), after={"role": role})
            db.session.commit()
    except (TenancyError, ServiceError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{email} is {role} in {slug}")


@members_group.command("set-password")
@click.argument("email")
@click.option("--password", envvar="MEMBER_PASSWORD", help="Asked for if not given.")
def set_password(email: str, password: str | None) -> None:
    """Give a user a password, as to one who was let in by an admin and has none. Ends all their sessions."""
    password = password or click.prompt("Password", hide_input=True, confirmation_prompt=True)
    _refuse_what_login_refuses(email, password)
    try:
        with shared_side():
            user = members.set_password(email, hash_password(password))
            end_other_sessions(user.id, None)
            db.session.commit()
    except ServiceError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{email} has a new password")


def _refuse_what_login_refuses(email: str, password: str) -> None:
    """Nobody is made who could never log in."""
    for field, faults in LoginSchema().validate({"email": email, "password": password}).items():
        raise click.BadParameter(" ".join(faults), param_hint=str(field))
