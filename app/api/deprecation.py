"""Operations that will be removed: their answers say since when they are deprecated and until when they are served."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import Final

from flask import Flask, Response
from werkzeug.http import http_date

from app.api.headers import gives_header
from app.api.refusals import View
from app.current import request

NOTICE_DAYS: Final = 180
_ALL: Final = range(100, 600)


def deprecated(*, since: date, until: date, successor: str) -> Callable[[View], View]:
    """Mark a view as deprecated. Each answer has `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and a `Link` to the
    successor's path; OpenAPI marks the operation. The decorator must be above `response`. Raises ValueError for less
    notice than docs/integrating.md promises.
    """
    if (until - since).days < NOTICE_DAYS:
        raise ValueError(f"A deprecated operation is served for {NOTICE_DAYS} days or more.")
    headers = {
        "Deprecation": f"@{int(_midnight(since).timestamp())}",
        "Sunset": http_date(_midnight(until)),
        "Link": f'<{successor}>; rel="successor-version"',
    }

    def mark(view: View) -> View:
        for name, value in headers.items():
            gives_header(name, f"deprecated, see the policy of versions: {value}", on=_ALL)(view)
        view.__dict__["_apidoc"].setdefault("manual_doc", {})["deprecated"] = True
        view.__dict__["deprecation"] = headers
        return view

    return mark


def init_app(app: Flask) -> None:
    """Send the headers with all answers of deprecated operations, also the gate's refusals. Call it after all routes
    are registered. Without such an operation it registers nothing, so that no request pays for it.
    """
    found = {
        name: view.__dict__["deprecation"] for name, view in app.view_functions.items() if hasattr(view, "deprecation")
    }

    def tell(response: Response) -> Response:
        headers = found.get(request.endpoint or "")
        if headers:
            response.headers.extend(headers)
        return response

    if found:
        app.after_request(tell)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
