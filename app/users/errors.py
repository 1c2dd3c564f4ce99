"""Refusals about users."""

from app.errors import Conflict, NotFound
from app.sql_refusals import sql_refusal


@sql_refusal
class MemberNotFound(NotFound):
    """No such user, or no member of this tenant. Both get the same answer."""

    code = "member_not_found"
    sqlstate = "WA008"
    text = "There is no such member in this tenant."


class UserExists(Conflict):
    code = "user_exists"
