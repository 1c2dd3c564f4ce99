"""The data of commands: the bodies of the API's requests, and the wallet and hold that a request has in its path."""

from typing import Final

from app.api.fields import Identifier, Schema
from app.holds.schemas import AuthoriseSchema, CaptureSchema
from app.ledger.schemas import DepositSchema, PaymentSchema, RefundSchema


class OfWallet(Schema):
    wallet_id = Identifier(required=True, data_key="walletId")


class OfHold(OfWallet):
    hold_id = Identifier(required=True, data_key="holdId")


class PaymentCommand(OfWallet, PaymentSchema):
    pass


class DepositCommand(OfWallet, DepositSchema):
    pass


class RefundCommand(OfWallet, RefundSchema):
    pass


class HoldCommand(OfWallet, AuthoriseSchema):
    pass


class CaptureCommand(OfHold, CaptureSchema):
    pass


DATA_OF: Final[dict[str, Schema]] = {
    "payment": PaymentCommand(),
    "deposit": DepositCommand(),
    "refund": RefundCommand(),
    "hold": HoldCommand(),
    "capture": CaptureCommand(),
    "void": OfHold(),
}
