"""JSON answers: their bodies, and the headers that every answer of the service has."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from flask import Response
from werkzeug.datastructures import Headers
from werkzeug.http import HTTP_STATUS_CODES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

JSON: Final = "application/json"
# Answers are for the caller alone, unless they say otherwise, and are what they say they are.
NO_STORE: Final = ("Cache-Control", "no-store")
NO_SNIFF: Final = ("X-Content-Type-Options", "nosniff")
# Their answers have no body (RFC 9110, 15.3.5 and 15.4.5). Werkzeug removes it and its headers.
_WITHOUT_BODY: Final = frozenset({204, 304})


class JsonAnswer(Response):
    """An answer in JSON. It is what `Response(body, status, headers, mimetype=content_type)` makes, with the protecting
    headers, in a fraction of the calls. A `Location` must be encoded already.
    """

    def __init__(
        self, body: bytes, status: int, headers: Mapping[str, str] | None = None, content_type: str = JSON
    ) -> None:
        self.headers = Headers()
        self.headers._list = [("Content-Type", content_type), ("Content-Length", str(len(body))), NO_STORE, NO_SNIFF]
        self._status, self._status_code = _status_line(status), status
        self._on_close = []
        self.direct_passthrough = False
        self.response = [body]
        self.is_usual = status >= 200 and status not in _WITHOUT_BODY  # noqa: PLR2004
        if headers:
            self.headers.extend(headers)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Send the answer. A usual one needs none of Werkzeug's corrections."""
        body: Any = self.response
        if not self.is_usual or self._on_close or type(body) is not list or environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        start_response(self._status, list(self.headers._list))
        return cast(Iterable[bytes], body)


@cache
def _status_line(status: int) -> str:
    phrase = HTTP_STATUS_CODES.get(status, "unknown")
    return f"{status} {phrase.upper()}"


def json_answer(value: Any, status: int, headers: Mapping[str, str] | None = None) -> JsonAnswer:
    """An answer with this value, which must consist of types that orjson knows."""
    return JsonAnswer(orjson.dumps(value), status, headers)


def protect(response: Response) -> Response:
    """Set the protecting headers. An answer that says `Cache-Control: public` keeps it."""
    if type(response) is JsonAnswer:
        return response
    if not response.cache_control.public:
        response.headers.set(*NO_STORE)
    response.headers.set(*NO_SNIFF)
    return response
