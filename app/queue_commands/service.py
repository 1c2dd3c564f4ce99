"""Runs a command in the bound tenant: one statement, its own db transaction, committed when it returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import marshmallow
import orjson
import psycopg

from app.api.fields import Identifier
from app.api.requests import load_data
from app.audit.service import entry_json
from app.auth.actors import Actor
from app.errors import Invalid
from app.money import to_minor
from app.queue_commands.errors import CommandIdReused
from app.queue_commands.messages import Command
from app.queue_commands.schemas import DATA_OF
from app.wallets.errors import WalletNotFound
from app.wallets.service import currency_of
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

MOST_FAULTS: Final = 10
LONGEST_TEXT: Final = 100  # of a fault: names of fields are the sender's
_RUN: Final = """
    SELECT outcome, code, detail, subject_id, event_id, repeated
    FROM command_run_v1(%s, %s, %s, %s, %s, %s, %s::jsonb, %s::jsonb, %s, %s::jsonb, %s)"""
# The members that the SQL function reads, by the names of a command's data.
_NAMES: Final = {
    **{"payment_id": "paymentId", "hold_id": "holdId", "order_id": "orderId", "expires_at": "expiresAt"},
    **{"description": "description", "reference": "reference"},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`outcome` is `completed` or `refused`, then with the refusal's code. The subject is the movement or the hold, the
    event the answer. `repeated`: an earlier delivery has had this outcome, and this one had no effect.
    """

    outcome: str
    code: str | None
    detail: Mapping[str, Any] | None
    subject_id: UUID | None
    event_id: UUID
    repeated: bool


def run_command(command: Command, actor: Actor) -> Outcome:
    """Do what the command says, in the name of an API key, or return what an earlier delivery came to. A refusal by a
    rule of money or for invalid data is an outcome too, and is kept.

    Locks the command's row, the wallet's row and then the head of the audit log's chain. Raises CommandIdReused.
    """
    data: dict[str, Any] = {"wallet_id": _identifier(command.data.get("walletId"))}
    amount_minor = refusal = None
    try:
        data = load_data(command.data, DATA_OF[command.verb])
        if "amount" in data:
            amount_minor = to_minor(data["amount"], currency_of(data["wallet_id"]))
    except (Invalid, WalletNotFound) as error:
        refusal = error
    parameters = (
        *(command.source, command.id, command.verb, command.fingerprint, data["wallet_id"], amount_minor),
        *(_json({_NAMES[name]: value for name, value in data.items() if name in _NAMES}), entry_json(actor)),
        *((refusal.code, _json(_bounded(refusal.members))) if refusal else (None, None)),
        command.traceparent,
    )
    try:
        # After a broken connection, the outcome of the first try makes the second one safe.
        (row,) = connections().engine(current_tenant()).one_statement(_RUN, parameters, retry=True)
    except psycopg.Error as error:
        if error.sqlstate == CommandIdReused.sqlstate:
            raise CommandIdReused(
                "A command with this source and id was run before, and said something else."
            ) from None
        raise
    return Outcome(*row)


def _bounded(members: dict[str, Any]) -> dict[str, Any]:
    """The refusal's members with some of its faults: a command may have thousands and long ones, and its answer is
    stored.
    """
    if "errors" not in members:
        return members
    faults = members["errors"][:MOST_FAULTS]
    return {**members, "errors": [{name: text[:LONGEST_TEXT] for name, text in each.items()} for each in faults]}


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _identifier(text: Any) -> UUID | None:
    """The wallet of a command whose data is invalid, so that its answer is among the wallet's events."""
    try:
        found: UUID = Identifier().deserialize(text)
    except marshmallow.ValidationError:
        return None
    return found
