"""Records refused requests (4xx) in the tenant's audit log.

A change is recorded where it happens, in the same db transaction. A refusal has the request's path as its subject and
no wallet, because the audit compares each wallet with its last entry. What is recorded follows from the route, the
caller and the outcome, and not from what the request says:

- of a caller who lacks the role or the second factor that the route demands, each refusal, within a bound and then
  counted (`commit_refusal`);
- of a caller whom the route admits, each refusal of a request that would change something, and each want of a right.
  A refused dry run changed nothing and is not recorded; an operator's is, because its answer shows the wallet's funds.

A server error (5xx) is not recorded: its outcome is unknown, and the service's log has it.
"""

from typing import Final
from urllib.parse import quote

import orjson
import psycopg
import structlog
from flask import Flask, Response
from sqlalchemy.exc import SQLAlchemyError

from app.api.problems import MEDIA_TYPE
from app.api.requests import SAFE_METHODS
from app.audit.service import commit_entry, commit_refusal
from app.auth.access import OPENS, actor, caller
from app.auth.actors import ActorKind
from app.auth.second_factor.errors import SecondFactorDemanded
from app.current import current_app, g, request
from app.db import db
from tenant_schemas import registry
from tenant_schemas.errors import TenancyError, TenantNotFound
from tenant_schemas.flask import connections
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)
REFUSALS: Final = range(400, 500)
FORBIDDEN: Final = 403


def init_app(app: Flask) -> None:
    app.after_request(_note)


def subject() -> str:
    """The request's path in printable ASCII."""
    return quote(request.path, safe="/:@!$&'()*+,;=~", errors="replace")


def _note(response: Response) -> Response:
    if response.status_code in REFUSALS and "caller" in g:
        db.session.rollback()
        try:
            tenant = _concerned(response)
            if tenant is not None:
                code = _code(response)
                write = commit_entry if _is_admitted(code) else commit_refusal
                write(tenant, actor(), _action(), subject=subject(), refusal=code)
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
        changes_nothing = looks or (g.get("is_rehearsal", False) and caller().kind is not ActorKind.OPERATOR)
        return tenant if not changes_nothing or response.status_code == FORBIDDEN else None
    slug = (request.view_args or {}).get("slug")
    if looks or slug is None or caller().kind is not ActorKind.OPERATOR:
        return None
    try:
        with connections().shared.begin() as connection:
            return registry.get_tenant(connection, slug)
    except TenantNotFound:
        return None


def _is_admitted(code: str) -> bool:
    """Whether the caller has the role, and the second factor, that the route demands."""
    who = getattr(current_app.view_functions[request.endpoint or ""], "access", None)
    has_role = caller().role in OPENS[who] if who in OPENS else True
    return has_role and code != SecondFactorDemanded.code


def _action() -> str:
    """A look for a safe method: Flask answers OPTIONS at the route of a change."""
    if request.method in SAFE_METHODS:
        return "look"
    view = current_app.view_functions[request.endpoint or ""]
    return getattr(view, "does", None) or "look"


def _code(response: Response) -> str:
    if response.mimetype != MEDIA_TYPE:
        return str(response.status_code)
    return str(orjson.loads(response.get_data())["code"])
