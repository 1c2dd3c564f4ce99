"""An authenticator, as a user's telephone has one."""

from time import time
from typing import Any

import pyotp

from tests.factories.api import Api
from tests.factories.people import Person

STEP_SECONDS = 30


class Authenticator:
    """Shows the codes of a secret. Each call shows another code that the service accepts now: the last, this, the
    next.
    """

    def __init__(self, secret: str) -> None:
        self._totp = pyotp.TOTP(secret)
        self._next = int(time()) // STEP_SECONDS - 1

    def code(self) -> str:
        shown = self._totp.generate_otp(self._next)
        self._next += 1
        return shown


def switch_on(api: Api, person: Person, password: str) -> tuple[Authenticator, list[str]]:
    """Set up the person's second factor. Two codes of the authenticator are left, and the recovery codes."""
    made: Any = api.post("/api/me/second-factor", person, json={"currentPassword": password}).json
    shown = Authenticator(made["secret"])
    confirmed = api.post("/api/me/second-factor/confirm", person, json={"code": shown.code()})
    assert confirmed.status_code == 200, confirmed.text
    return shown, confirmed.json["codes"]
