"""Statements and exports on the wire."""

from typing import Any

from marshmallow import Schema, fields

from app.api.fields import Answer, Moment, PeriodQuery, moment_text
from app.api.money_fields import MoneyField
from app.ledger.schemas import TransactionSchema
from app.money import format_minor
from app.statements.models import Line
from app.wallets.currencies import CurrencyQuery
from tenant_schemas.context import current_tenant


class StatementQuery(PeriodQuery):
    start = Moment(required=True, data_key="from", metadata={"description": "at or after this moment"})
    end = Moment(required=True, data_key="to", metadata={"description": "before this moment"})


class ProvenQuery(Schema):
    proof = fields.Boolean(
        load_default=False,
        metadata={
            "description": "`true`: with each movement what its hash is made of, for `scripts/prove_statement.py`"
        },
    )


class JsonStatementQuery(StatementQuery, ProvenQuery):
    """A statement as JSON."""


class OwnStatementQuery(StatementQuery, CurrencyQuery):
    """The currency selects the member's wallet."""


class OwnJsonStatementQuery(OwnStatementQuery, ProvenQuery):
    """A member's statement as JSON."""


class ProvenEntrySchema(Answer):
    number = fields.Integer()
    debit_account = fields.String(data_key="debitAccount")
    credit_account = fields.String(data_key="creditAccount")
    amount = MoneyField(attribute="amount_minor", metadata={"description": "in the movement's currency"})


class MovementProofSchema(Answer):
    """What a movement's hash is made of besides the hash before and the movement's other members."""

    hash = fields.String(metadata={"description": "hexadecimal"})
    request_fingerprint = fields.String(data_key="requestFingerprint", metadata={"description": "hexadecimal"})
    idempotency_key = fields.String(data_key="idempotencyKey")
    debit_account = fields.String(data_key="debitAccount", allow_none=True)
    credit_account = fields.String(data_key="creditAccount", allow_none=True)
    entries = fields.List(
        fields.Nested(ProvenEntrySchema),
        allow_none=True,
        metadata={"description": "of a movement of before release 0.2, whose hash covers them; else null"},
    )


class MovementSchema(TransactionSchema):
    class Meta:
        exclude = ("refundable",)

    may_lack = (*TransactionSchema.may_lack, "proof")
    proof = fields.Nested(MovementProofSchema, metadata={"description": "with `proof=true` only"})


class StatementSchema(Answer):
    """The OpenAPI description of a statement in JSON, which `json.py` writes in pieces."""

    may_lack = ("previous_hash",)

    wallet_id = fields.UUID(data_key="walletId")
    tenant_id = fields.String(data_key="tenantId", metadata={"description": "the slug"})
    currency = fields.String(metadata={"description": "ISO 4217"})
    start = Moment(data_key="from")
    end = Moment(data_key="to")
    opening_balance = MoneyField(attribute="opening_minor", data_key="openingBalance")
    previous_hash = fields.String(
        data_key="previousHash",
        metadata={"description": "with `proof=true` only, hexadecimal: the hash that the first movement continues"},
    )
    movements = fields.List(fields.Nested(MovementSchema), metadata={"description": "oldest first"})
    closing_balance = MoneyField(attribute="closing_minor", data_key="closingBalance")


def shown(line: Line) -> dict[str, Any]:
    """The same dict that `MovementSchema` would dump, in half the time: a statement may have a million movements."""
    if line.hash is None:
        return _movement(line)
    return _movement(line) | {
        "proof": {
            "hash": line.hash.hex(),
            "requestFingerprint": (line.request_fingerprint or b"").hex(),
            "idempotencyKey": line.idempotency_key,
            "debitAccount": line.debit_account,
            "creditAccount": line.credit_account,
            "entries": None if line.entries is None else [_entry(each, line.currency) for each in line.entries],
        }
    }


def _entry(entry: tuple[int, str, str, int], currency: str) -> dict[str, Any]:
    number, debit, credit, amount_minor = entry
    amount = format_minor(amount_minor, currency)
    return {"number": number, "debitAccount": debit, "creditAccount": credit, "amount": amount}


def _movement(line: Line) -> dict[str, Any]:
    return {
        "id": line.id,
        "walletId": line.wallet_id,
        "tenantId": current_tenant().slug,
        "seq": line.seq,
        "type": line.type,
        "amount": format_minor(line.amount_minor, line.currency),
        "balanceAfter": format_minor(line.balance_after_minor, line.currency),
        "currency": line.currency,
        "orderId": line.order_id,
        "paymentId": line.refund_of,
        "holdId": line.hold_id,
        "adminId": line.admin_id,
        "description": line.description,
        "reference": line.reference,
        "reason": line.reason,
        "createdAt": moment_text(line.created_at),
    }
