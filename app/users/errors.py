"""Refusals about users."""

from app.errors import Conflict, NotFound, Unavailable
from app.sql_refusals import sql_refusal


@sql_refusal
class MemberNotFound(NotFound):
    """No such user, or no member of this tenant. Both get the same answer."""

    code = "member_not_found"
    sqlstate = "WA008"
    text = "There is no such member in this tenant."


@sql_refusal
class StandingUnproven(Unavailable):
    """A statement did not find the standing that it was to prove, and did nothing. The gate asks for the standing
    again, so a client sees this only if the standing changes twice within one request.
    """

    code = "standing_changed"
    sqlstate = "WA090"
    text = "Your rights in this tenant are changing. Send the same request again, with the same Idempotency-Key."


class UserExists(Conflict):
    """A user has this address."""

    code = "user_exists"
