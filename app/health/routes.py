"""GET /livez: the process is alive; it touches nothing. GET /readyz: the process can serve."""

from http import HTTPStatus

import psycopg
from flask import Blueprint, Response, jsonify

from app.api.problems import problem
from app.tenancy import OLDEST_SHARED_REVISION, OLDEST_TENANT_REVISION
from tenant_schemas.flask import connections

blueprint = Blueprint("health", __name__)

NAMED_AT_MOST = 100
_READINESS = """
    SELECT (SELECT version_num FROM shared.alembic_version),
        ARRAY(SELECT t.slug FROM shared.tenants t WHERE t.status = 'active' AND t.revision < %s
            ORDER BY t.slug LIMIT %s)"""


@blueprint.get("/livez")
def livez() -> Response:
    return jsonify(status="alive")


@blueprint.get("/readyz")
def readyz() -> Response:
    """503 while the database does not answer or `shared` is behind. Tenants that are behind are listed, and do not make
    it 503: only their own requests are refused.
    """
    try:
        rows = connections().shared.one_statement(_READINESS, (OLDEST_TENANT_REVISION, NAMED_AT_MOST), retry=True)
    except psycopg.errors.UndefinedTable:
        return _not_ready("shared_behind", "Schema shared is missing: run `python -m scripts.migrate`.")
    except psycopg.Error:
        return _not_ready("database_unavailable", "The database does not answer.")
    revision, behind = rows[0]
    if revision is None or revision < OLDEST_SHARED_REVISION:
        needed = f"this code needs {OLDEST_SHARED_REVISION}: run `python -m scripts.migrate`."
        return _not_ready("shared_behind", f"Schema shared is at revision {revision}; {needed}")
    return jsonify(status="ready", tenantsBehind=behind)


def _not_ready(code: str, detail: str) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, code, detail)
