"""What can go wrong with who you are."""

from app.errors import Forbidden, Unauthenticated, Unavailable


class BadCredentials(Unauthenticated):
    """Wrong password, unknown address or disabled user: one answer for all three."""

    code = "bad_credentials"


class WrongPassword(Forbidden):
    """The current password is wrong. Not a 401, after which a client would refresh a token that is right."""

    code = "wrong_password"


class BadRefreshToken(Unauthenticated):
    """Unknown, used, over, or of somebody disabled: one answer for all, for a thief is told no more than a guesser."""

    code = "bad_refresh_token"


class CsrfRequired(Forbidden):
    """A request that changes something came with a cookie, and nothing shows that our own page sent it."""

    code = "csrf_required"


class SessionRequired(Forbidden):
    """The caller has no session here: the access token is an OpenID provider's."""

    code = "session_required"


class TokenRequired(Unauthenticated):
    code = "token_required"


class BadToken(Unauthenticated):
    code = "bad_token"


class AdminRequired(Forbidden):
    """The caller's role in this tenant does not open this route."""

    code = "admin_required"


class MemberRequired(Forbidden):
    """The caller has no wallets here: an auditor, an API key, or an operator."""

    code = "member_required"


class UserRequired(Forbidden):
    """An API key can't do this."""

    code = "user_required"


class OperatorRequired(Forbidden):
    code = "operator_required"


class ProviderUnavailable(Unavailable):
    """No key of the OpenID provider is known, and it can't be asked."""

    code = "identity_provider_unavailable"
