"""Decides what becomes of a message: its command was run, it has to wait, or it goes to the dead letters.

The broker's credentials say who sends: RabbitMQ checks that a message's `user-id` is the name of the user who is logged
in, and that name is the id of an API key. The body says nothing about tenant or sender.
"""

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import psycopg
import sqlalchemy.exc
import structlog
from flask import Flask

from app import limits
from app.audit.service import commit_refusal
from app.auth.access import OPENS, Access
from app.auth.actors import Actor, ActorKind
from app.auth.credentials import KEY_PREFIX
from app.auth.key_uses import note_key_use
from app.errors import Unavailable
from app.metrics.definitions import COMMANDS
from app.queue_commands.errors import MessageRefused, SenderUnknown, WrongTenant
from app.queue_commands.messages import Command, read_command
from app.queue_commands.service import Outcome, run_command
from app.tenancy import OLDEST_TENANT_REVISION
from app.tracing import delivery_span
from app.users.models import Role
from app.users.standing import Standing, standing_of_key_id
from tenant_schemas.errors import SchemaBehind, TenancyError, TenantNotFound
from tenant_schemas.flask import tenant_context
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

# A passing condition: of the database, of the tenant, of the schema.
WAIT_SECONDS: Final = 1.0
_SENDER: Final = re.compile(rf"{KEY_PREFIX}([0-9a-f]{{32}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The message is no command that can ever run."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The command may run after these seconds."""

    seconds: float


def handle(app: Flask, tenant_id: UUID, user_id: str | None, body: bytes) -> Outcome | DeadLetter | Wait:
    """Run the command in this message of the tenant's queue. Committed when it returns an outcome. Raises what is a
    fault of this service.
    """
    try:
        with app.app_context():
            return _handle(tenant_id, user_id, body)
    except MessageRefused as error:
        return DeadLetter(error.code, error.detail)
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError, TenancyError, Unavailable) as error:
        log.warning("command_waits", tenant_id=str(tenant_id), error=f"{type(error).__name__}: {error}")
        return Wait(WAIT_SECONDS)


def _handle(tenant_id: UUID, user_id: str | None, body: bytes) -> Outcome | Wait:
    key_id, found, tenant = _sender(tenant_id, user_id)
    if wait_seconds := limits.count_command(tenant, key_id):
        return Wait(wait_seconds)
    note_key_use(key_id)
    actor = Actor(ActorKind.API_KEY, key_id)
    try:
        command, outcome = _run(tenant, found.role, body, actor)
    except MessageRefused as error:
        commit_refusal(tenant, actor, "wallet.command", subject="commands", refusal=error.code)
        raise
    COMMANDS.labels(command.verb, "repeated" if outcome.repeated else outcome.outcome).inc()
    log.info(
        "command_answered",
        tenant=tenant.slug,
        source=command.source,
        command_id=command.id,
        verb=command.verb,
        outcome=outcome.outcome,
        code=outcome.code,
        repeated=outcome.repeated,
    )
    return outcome


def _run(tenant: Tenant, role: Role | None, body: bytes, actor: Actor) -> tuple[Command, Outcome]:
    """Raises NotACommand, SenderUnknown for a key that moves no money, CommandIdReused."""
    if role not in OPENS[Access.TELLER]:
        raise SenderUnknown(f"The API key has the role {role}, which moves no money.")
    command = read_command(body)
    with delivery_span("command", command.traceparent), tenant_context(tenant):
        return command, run_command(command, actor)


def _sender(tenant_id: UUID, user_id: str | None) -> tuple[UUID, Standing, Tenant]:
    """The API key that sent the message, and its tenant. Raises SenderUnknown, WrongTenant, TenantNotFound for a tenant
    that is not served now, SchemaBehind.
    """
    name = _SENDER.fullmatch(user_id or "")
    if name is None:
        raise SenderUnknown("The message has no `user-id` like wk_ and the id of an API key.")
    key_id = UUID(hex=name[1])
    found = standing_of_key_id(key_id)
    if found is None or found.tenant is None:
        raise SenderUnknown(f"The API key {user_id} is unknown, revoked or expired.")
    if found.tenant.id != tenant_id:
        raise WrongTenant(f"The API key {user_id} is of another tenant than this queue.")
    if not found.tenant.is_active:
        raise TenantNotFound("The tenant is not served now.")
    if found.tenant.revision < OLDEST_TENANT_REVISION:
        raise SchemaBehind("This tenant is being migrated.")
    return key_id, found, found.tenant
