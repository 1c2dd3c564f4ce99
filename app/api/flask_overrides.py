"""Replacements for two parts of Flask: its JSON provider, and its session cookies, which this service does not use.
`application.py` replaces its dispatch.
"""

from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Request, Response
from flask.json.provider import JSONProvider
from flask.sessions import NullSession, SessionInterface

from app.api.answers import json_answer

_NO_SESSION = NullSession()  # Nothing can be written to it.


class NoSessions(SessionInterface):
    """Disables Flask's session cookies: sessions are in app/auth/sessions.py, and the look-up would cost
    every request.
    """

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return _NO_SESSION


class FastJson(JSONProvider):
    """Flask's JSON provider on orjson. It gets plain values only, because schemas have dumped the objects."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        return json_answer(self._prepare_response_obj(args, kwargs), HTTPStatus.OK)
