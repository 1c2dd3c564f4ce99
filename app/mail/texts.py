"""The texts of account mails: plain text, in plain English. Nothing in them was chosen by a stranger except an address
and the name of a tenant.
"""

from collections.abc import Mapping
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from typing import Any, Final
from uuid import UUID

from app.mail.models import MailKind

_NOT_YOU: Final = "If this was not you, set a new password at once: ask for it as for a forgotten one."
_SUBJECTS: Final = {
    MailKind.INVITATION: "You are invited to {tenant}",
    MailKind.PASSWORD_RESET: "Set a new password",
    MailKind.EMAIL_CHANGE: "Confirm your new address",
    MailKind.NO_PASSWORD: "Your account has no password",
    MailKind.PASSWORD_CHANGED: "Your password was changed",
    MailKind.EMAIL_CHANGE_ASKED: "Another address was asked for your account",
    MailKind.EMAIL_CHANGED: "The address of your account was changed",
    MailKind.SECOND_FACTOR_ON: "Your second factor is on",
    MailKind.SECOND_FACTOR_OFF: "Your second factor is off",
    MailKind.WEBHOOK_DISABLED: "A webhook of {tenant} is disabled",
}
_BODIES: Final = {
    MailKind.INVITATION: "You are invited to {tenant}, with the role {role}.\n\n{use}\n\n"
    "If you expected no invitation, do nothing: nobody can use it without this mail.",
    MailKind.PASSWORD_RESET: "Somebody asked for a new password of the account with this address.\n\n{use}\n\n"
    "If this was not you, do nothing: your password stays.",
    MailKind.EMAIL_CHANGE: "An account asks for this address in place of {old}.\n\n{use}\n\n"
    "If this was not you, do nothing: the account keeps its address, and nobody can change it without this mail.",
    MailKind.NO_PASSWORD: "Somebody asked for a new password of the account with this address. The account has none:"
    " you log in through your identity provider.\n\nIf this was not you, do nothing.",
    MailKind.PASSWORD_CHANGED: f"The password of your account was changed, and all other sessions ended.\n\n{_NOT_YOU}",
    MailKind.EMAIL_CHANGE_ASKED: "Your account is to have the address {new} in place of {old}. It changes when the mail"
    f" to the new address is confirmed.\n\n{_NOT_YOU} That ends the change.",
    MailKind.EMAIL_CHANGED: "The address of your account was changed from {old} to {new}.\n\n"
    "If this was not you, write to your tenant's admin at once.",
    MailKind.SECOND_FACTOR_ON: f"From now on your account asks for a code when you log in.\n\n{_NOT_YOU}",
    MailKind.SECOND_FACTOR_OFF: f"From now on your account asks for a password only when you log in.\n\n{_NOT_YOU}",
    MailKind.WEBHOOK_DISABLED: "{tenant} sends no events to {host} any more: {reason}.\n\n"
    "The webhook keeps its place: once it is enabled again, it gets the events from there on.",
}
_DEFAULTS: Final = {"old": "its present one"}  # A mail of release 0.2.0 does not name the account.
# What the token is for: the page's action, and the operation of the API.
_USES: Final = {
    MailKind.INVITATION: ("accept-invitation", "POST /api/auth/invitations/accept"),
    MailKind.PASSWORD_RESET: ("reset-password", "POST /api/auth/password/reset"),
    MailKind.EMAIL_CHANGE: ("confirm-email", "POST /api/auth/email/confirm"),
}


def compose(
    kind: MailKind,
    recipient: str,
    details: Mapping[str, Any],
    *,
    mail_id: UUID,
    created_at: datetime,
    token: str | None,
    sender: str,
    pages_url: str,
) -> EmailMessage:
    """The mail, ready to be sent. A mail that is sent again has the same Message-ID, and one that is asked for
    again has another. Raises ValueError for a recipient that can't stand in a header.
    """
    named = _DEFAULTS | {name: " ".join(str(value).split()) for name, value in details.items()}
    use = _use(kind, token, pages_url) if token else ""
    message = EmailMessage()
    author = Address(addr_spec=sender)
    message["From"] = author
    message["To"] = Address(addr_spec=recipient)
    message["Subject"] = _SUBJECTS[kind].format_map(named)
    message["Date"] = created_at
    message["Message-ID"] = f"<{mail_id.hex}.{int(created_at.timestamp() * 1_000_000):x}@{author.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence note answers it.
    message.set_content(f"Hello,\n\n{_BODIES[kind].format_map(named | {'use': use})}\n")
    return message


def _use(kind: MailKind, token: str, pages_url: str) -> str:
    """How to use the token. It stands in the fragment, which a browser sends to no server."""
    action, operation = _USES[kind]
    if pages_url:
        return f"Open this link to go on:\n{pages_url}#action={action}&token={token}"
    return f"Send this token to {operation}:\n{token}"
