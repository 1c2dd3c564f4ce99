"""Devices that have logged in before: strangers who guess a user's password do not hold up the user's own device
(OWASP, "device cookies").

A device token is a signed statement: this device has logged in as this user, with this password. It is no credential:
it only chooses the counters of a log-in (`app/limits/attempts.py`). It ends with the password. Nothing is stored.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from time import time
from typing import Final
from uuid import UUID, uuid4

from flask import Request, Response, after_this_request

from app.auth.cookies import set_below_auth_path
from app.current import request
from app.derived_keys import mac_of
from app.errors import TooManyRequests
from app.limits.attempts import count_device
from app.users.service import credentials
from tenant_schemas import base64url

# __Host- requires the path /; this cookie is sent to AUTH_PATH only. A log-out leaves it.
DEVICE_COOKIE: Final = "__Secure-device"
DEVICE_SECONDS: Final = 400 * 86_400  # Browsers keep no cookie longer.
MOST_OF_A_BROWSER: Final = 4  # users who share a browser
_FIELDS: Final = Struct(">16s16s8sI")  # user, device, password, moment
_PASSWORD_BYTES: Final = 8
_TAG_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Device:
    """What a genuine device token says. `password` is a keyed hash of the stored password hash."""

    id: UUID
    user_id: UUID
    password: bytes


def device_token(user_id: UUID, password_hash: str | None, device_id: UUID | None = None) -> str:
    """A token for a device that has just proved the user's password. Pass the id of a device that is known already."""
    device = device_id or uuid4()
    fields = _FIELDS.pack(user_id.bytes, device.bytes, _password_mark(password_hash), int(time()))
    return base64url.encode(fields + mac_of("device token", fields)[:_TAG_BYTES])


def presented_tokens(request: Request, in_body: str | None) -> list[str]:
    """The device tokens of the body and of the cookie, unverified."""
    of_browser = request.cookies.get(DEVICE_COOKIE, "").split(".")[:MOST_OF_A_BROWSER]
    return [text for text in (in_body, *of_browser) if text]


def known_device(email: str, presented: Iterable[str]) -> Device | None:
    """The device, if one of the tokens is of the active user with this address and of the user's present password. If
    one of them is genuine, the log-in is counted for the first such device, and then the database is asked. Beyond the
    limit of a device that several users share, there is none: one of them must not keep out the others. Raises
    TooManyRequests.
    """
    devices = [device for text in presented if (device := _read(text))]
    if not devices:
        return None
    try:
        count_device(devices[0].id)
    except TooManyRequests:
        if len({each.user_id for each in devices}) > 1:
            return None
        raise
    known = credentials(email)
    if known is None or not known.is_active:
        return None
    password = _password_mark(known.password_hash)
    fitting = (each for each in devices if each.user_id == known.user_id and each.password == password)
    return next(fitting, None)


def keep_device_cookie(token: str) -> None:
    """Set the cookie in the answer to the current request, in front of those of other users of the browser."""
    device = _read(token)
    others = [
        text
        for text in presented_tokens(request, None)
        if (other := _read(text)) and device and other.user_id != device.user_id
    ]
    value = ".".join([token, *others][:MOST_OF_A_BROWSER])

    @after_this_request
    def keep(response: Response) -> Response:
        set_below_auth_path(response, DEVICE_COOKIE, value, DEVICE_SECONDS)
        return response


def _read(text: str) -> Device | None:
    """None for what is no token of this service, or is too old."""
    try:
        raw = base64url.decode(text)
    except ValueError:
        return None
    fields, tag = raw[: _FIELDS.size], raw[_FIELDS.size :]
    if len(fields) != _FIELDS.size or not hmac.compare_digest(tag, mac_of("device token", fields)[:_TAG_BYTES]):
        return None
    user, device, password, moment = _FIELDS.unpack(fields)
    return Device(UUID(bytes=device), UUID(bytes=user), password) if moment + DEVICE_SECONDS > time() else None


def _password_mark(password_hash: str | None) -> bytes:
    return mac_of("device password", (password_hash or "").encode())[:_PASSWORD_BYTES]
