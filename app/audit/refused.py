"""Notes in the tenant's audit log what was refused to whom, and what an operator looked at.

What was done is noted where it is done, in its own db transaction. What was refused has its path as its subject and no
wallet, for the audit compares each wallet with the last entry about it.
"""

import orjson
import psycopg
import structlog
from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from app.audit.models import ActorKind
from app.audit.service import note_in
from app.db import db
from app.problems import MEDIA_TYPE
from app.tenancy import SAFE_METHODS, actor, caller
from tenant_schemas.errors import TenancyError

log = structlog.get_logger(__name__)
FORBIDDEN = 403
REFUSED = 400


def init_app(app: Flask) -> None:
    app.after_request(_note)


def _note(response: Response) -> Response:
    if _is_worth_noting(response):
        db.session.rollback()
        try:
            note_in(g.tenant, actor(), _action(), subject=request.path, refusal=_code(response))
        except (psycopg.Error, SQLAlchemyError, TenancyError):
            log.exception("audit_entry_lost", action=_action())
    return response


def _is_worth_noting(response: Response) -> bool:
    if not g.get("is_watched"):  # Also what a limit turned away, which is not to touch the tenant's schema.
        return False
    looks = request.method in SAFE_METHODS
    if response.status_code >= REFUSED:
        return not looks or response.status_code == FORBIDDEN
    return looks and caller().kind is ActorKind.OPERATOR


def _action() -> str:
    view = current_app.view_functions[request.endpoint or ""]
    return getattr(view, "does", None) or "look"


def _code(response: Response) -> str | None:
    if response.status_code < REFUSED:
        return None
    if response.mimetype != MEDIA_TYPE:
        return str(response.status_code)
    return str(orjson.loads(response.get_data())["code"])
