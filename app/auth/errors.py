"""Refusals of authentication and authorisation."""

from app.errors import Forbidden, Unauthenticated, Unavailable


class BadCredentials(Unauthenticated):
    """Wrong password, unknown address or disabled user. All three get the same answer."""

    code = "bad_credentials"


class WrongPassword(Forbidden):
    """The current password is wrong. It is no 401, because a client would then refresh a token that is valid."""

    code = "wrong_password"


class BadRefreshToken(Unauthenticated):
    """Unknown, used or expired, or its user is disabled. All get the same answer, so that an attacker learns
    nothing.
    """

    code = "bad_refresh_token"


class CsrfRequired(Forbidden):
    """A request that changes something came with a cookie, and without proof that it comes from this service's page."""

    code = "csrf_required"


class SessionRequired(Forbidden):
    """The caller has no session in this service: the access token is an OpenID provider's."""

    code = "session_required"


class TokenRequired(Unauthenticated):
    """The operation needs an access token or an API key, and the request has none."""

    code = "token_required"


class BadToken(Unauthenticated):
    """The access token or the API key is not valid, has expired, or its session is over."""

    code = "bad_token"


class AdminRequired(Forbidden):
    """The caller's role in this tenant may not call this route."""

    code = "admin_required"


class MemberRequired(Forbidden):
    """The caller has no wallets in this tenant: an auditor, an API key or an operator."""

    code = "member_required"


class UserRequired(Forbidden):
    """An API key may not call this route."""

    code = "user_required"


class OperatorRequired(Forbidden):
    """The operation is for operators of the installation."""

    code = "operator_required"


class ProviderUnavailable(Unavailable):
    """No key of the OpenID provider is known, and the provider does not answer."""

    code = "identity_provider_unavailable"
