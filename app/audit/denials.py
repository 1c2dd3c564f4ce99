"""Records refused requests (4xx) in the tenant's audit log.

A change is recorded where it happens, in the same db transaction. A refusal has the request's path as its subject and
no wallet, because the audit compares each wallet with its last entry. A server error (5xx) is not recorded: its outcome
is unknown, and the service's log has it.
"""

import orjson
import psycopg
import structlog
from flask import Flask, Response
from sqlalchemy.exc import SQLAlchemyError

from app.api.problems import MEDIA_TYPE
from app.api.requests import SAFE_METHODS
from app.audit.service import commit_entry
from app.auth.access import actor, caller
from app.auth.actors import ActorKind
from app.current import current_app, g, request
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
                commit_entry(tenant, actor(), _action(), subject=request.path, refusal=_code(response))
        except (psycopg.Error, SQLAlchemyError, TenancyError):
            log.exception("audit_entry_lost", action=_action())
    return response


def _concerned(response: Response) -> Tenant | None:
    """The tenant with the audit log for this refusal; None for a request that a limit refused, which must not touch a
    schema.
    """
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
