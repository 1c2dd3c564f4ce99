"""Refusals of authentication and authorisation."""

from app.errors import Conflict, Forbidden, NotFound, Unauthenticated, Unavailable


class BadCredentials(Unauthenticated):
    """Wrong password, unknown address or disabled user. All three get the same answer."""

    code = "bad_credentials"


class WrongPassword(Forbidden):
    """The current password is wrong. It is no 401, because a client would then refresh a token that is valid."""

    code = "wrong_password"


class NoPassword(Conflict):
    """The account has no password: its user logs in through the identity provider, or sets a first password by mail."""

    code = "no_password"


class SessionNotFound(NotFound):
    """No such session, or another user's. Both get the same answer."""

    code = "session_not_found"


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
    code = "token_required"


class BadToken(Unauthenticated):
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
    code = "operator_required"


class ProviderUnavailable(Unavailable):
    """No key of the OpenID provider is known, and the provider does not answer."""

    code = "identity_provider_unavailable"
