"""Refusals about the second factor."""

from app.errors import Conflict, Forbidden, Unauthenticated


class SecondFactorRequired(Unauthenticated):
    """The password is right, and the account has a second factor: send the log-in again with its `code`."""

    code = "second_factor_required"


class SecondFactorWrong(Unauthenticated):
    """The password is right and the code is wrong: mistyped, used before, or of another moment."""

    code = "second_factor_wrong"


class SecondFactorDemanded(Forbidden):
    """The tenant, or the installation, demands a second factor of its staff, and this session has none. Set one up at
    POST /api/me/second-factor, or log in with one.
    """

    code = "second_factor_demanded"


class CodeWrong(Forbidden):
    """The code is wrong. It is no 401, because a client would then refresh a token that is valid."""

    code = "code_wrong"


class SecondFactorExists(Conflict):
    """The account has a second factor already. Switch it off before you set up another one."""

    code = "second_factor_exists"


class SecondFactorMissing(Conflict):
    """The account has no second factor, or none that waits for its confirmation."""

    code = "second_factor_missing"
