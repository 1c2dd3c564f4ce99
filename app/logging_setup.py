"""Structured logs: JSON lines on standard output, one for each request. Headers and bodies are never logged."""

import logging
import re
import sys
from time import perf_counter
from uuid import uuid4

import structlog
from flask import Flask, Response, g, request

log = structlog.get_logger("request")

REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def init_app(app: Flask, level: str) -> None:
    """Configure the process's logging, and log each request of this application when it ends."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    g.started = perf_counter()
    wished = request.headers.get(REQUEST_ID_HEADER, "")
    g.request_id = wished if _REQUEST_ID.fullmatch(wished) else str(uuid4())
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    response.headers[REQUEST_ID_HEADER] = g.request_id
    tenant = g.get("tenant")
    user_id = g.get("user_id")
    log.info(
        "request",
        method=request.method,
        route=str(request.url_rule) if request.url_rule else None,
        tenant=tenant.slug if tenant else None,
        user=str(user_id) if user_id else None,
        status=response.status_code,
        duration_ms=round((perf_counter() - g.started) * 1000, 2),
    )
    return response
