"""Refusals of authentication and authorisation. The code of a 401 says what the client does next.

Unauthenticated                             401
├── BadCredentials      bad_credentials     correct the address or the password
├── TokenMissing        token_missing       log in
├── TokenInvalid        token_invalid       log in, or ask an admin for another key
├── TokenExpired        token_expired       refresh
└── SessionOver         session_over        log in again
"""

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


class CsrfRequired(Forbidden):
    """A request that changes something came with a cookie, and without proof that it comes from this service's page."""

    code = "csrf_required"


class SessionRequired(Forbidden):
    """The caller has no session in this service: the access token is an OpenID provider's."""

    code = "session_required"


class TokenMissing(Unauthenticated):
    """The request has no token, or one of another scheme than Bearer. The client logs in."""

    code = "token_missing"


class TokenInvalid(Unauthenticated):
    """The token or API key is not one of this service, or the key is revoked or expired. The client must not repeat
    it.
    """

    code = "token_invalid"
    is_of_token = True


class TokenExpired(Unauthenticated):
    """The access token was valid once. The client refreshes it."""

    code = "token_expired"
    is_of_token = True


class SessionOver(Unauthenticated):
    """The session of the token has ended or its user is disabled. The client logs in again. Refresh tokens that are
    unknown, used or expired get this same answer, so that an attacker learns nothing.
    """

    code = "session_over"
    is_of_token = True


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
