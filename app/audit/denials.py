"""Notes in the tenant's audit log what was refused to whom.

What was done is noted where it is done, in its own db transaction, and an operator's look before it is answered. What
was refused has its path as its subject and no wallet, for the audit compares each wallet with the last entry about it.
What broke is no refusal, and nobody knows whether it was done: the service's log has it.
"""

import orjson
import psycopg
import structlog
from flask import Flask, Response, current_app, g, request
from sqlalchemy.exc import SQLAlchemyError

from app.api.problems import MEDIA_TYPE
from app.api.requests import SAFE_METHODS
from app.audit.service import note_in
from app.auth.access import actor, caller
from app.auth.actors import ActorKind
from app.db import db
from tenant_schemas import registry
from tenant_schemas.errors import TenancyError, TenantNotFound
from tenant_schemas.flask import connections
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)
REFUSALS = range(400, 500)
FORBIDDEN = 403


def init_app(app: Flask) -> None:
    app.after_request(_note)


def _note(response: Response) -> Response:
    if response.status_code in REFUSALS and "caller" in g and request.args.get("dryRun") != "true":
        db.session.rollback()
        try:
            tenant = _concerned(response)
            if tenant is not None:
                note_in(tenant, actor(), _action(), subject=request.path, refusal=_code(response))
        except (psycopg.Error, SQLAlchemyError, TenancyError):
            log.exception("audit_entry_lost", action=_action())
    return response


def _concerned(response: Response) -> Tenant | None:
    """The tenant whose log is to tell of this. What a limit turned away is not to touch a schema, so it is none's."""
    looks = request.method in SAFE_METHODS
    if g.get("is_watched"):
        tenant: Tenant = g.tenant
        return tenant if not looks or response.status_code == FORBIDDEN else None
    slug = (request.view_args or {}).get("slug")
    if looks or slug is None or caller().kind is not ActorKind.OPERATOR:
        return None
    try:
        with connections().shared.begin() as connection:
            return registry.get_tenant(connection, slug)
    except TenantNotFound:
        return None


def _action() -> str:
    view = current_app.view_functions[request.endpoint or ""]
    return getattr(view, "does", None) or "look"


def _code(response: Response) -> str:
    if response.mimetype != MEDIA_TYPE:
        return str(response.status_code)
    return str(orjson.loads(response.get_data())["code"])
