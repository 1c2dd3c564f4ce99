"""Refusals of holds, by the SQLSTATEs of their SQL functions."""

from app.errors import Conflict, Invalid, NotFound
from app.sql_refusals import sql_refusal


@sql_refusal
class HoldNotFound(NotFound):
    code = "hold_not_found"
    sqlstate = "WA013"
    text = "There is no such hold in this wallet."


@sql_refusal
class AlreadyCaptured(Conflict):
    code = "already_captured"
    sqlstate = "WA014"
    text = "The hold was captured in full."


@sql_refusal
class HoldVoided(Conflict):
    code = "hold_voided"
    sqlstate = "WA015"
    text = "The hold was voided."


@sql_refusal
class HoldExpired(Conflict):
    code = "hold_expired"
    sqlstate = "WA016"
    text = "The hold has expired."


@sql_refusal
class CaptureExceedsHold(Conflict):
    """`capturable` is the remaining amount of the hold."""

    code = "capture_exceeds_hold"
    sqlstate = "WA017"
    text = "The amount is more than the hold has left."


@sql_refusal
class ExpiryInThePast(Invalid):
    code = "expiry_in_the_past"
    sqlstate = "WA018"
    text = "The moment in expiresAt must be in the future."
