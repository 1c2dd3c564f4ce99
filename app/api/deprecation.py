"""Operations that will be removed: their answers say since when they are deprecated and until when they are served."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from functools import wraps
from typing import Any, Final, cast

from flask import Response, after_this_request
from werkzeug.http import http_date

from app.api.headers import gives_header
from app.api.refusals import View

NOTICE_DAYS: Final = 180


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

    def tell(response: Response) -> Response:
        response.headers.extend(headers)
        return response

    def mark(view: View) -> View:
        @wraps(view)
        def told(*arguments: Any, **named: Any) -> Any:
            after_this_request(tell)
            return view(*arguments, **named)

        for name, value in headers.items():
            gives_header(name, f"deprecated, see the policy of versions: {value}")(cast(View, told))
        told.__dict__["_apidoc"].setdefault("manual_doc", {})["deprecated"] = True
        return cast(View, told)

    return mark


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
