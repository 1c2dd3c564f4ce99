"""What can go wrong with who you are."""

from app.errors import Forbidden, Unauthenticated


class BadCredentials(Unauthenticated):
    """Wrong password, unknown address or disabled user: one answer for all three."""

    code = "bad_credentials"


class TokenRequired(Unauthenticated):
    code = "token_required"


class BadToken(Unauthenticated):
    code = "bad_token"


class AdminRequired(Forbidden):
    code = "admin_required"
