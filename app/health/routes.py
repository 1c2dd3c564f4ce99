"""GET /livez: the process is alive; it touches nothing. GET /readyz: the process can serve."""

from http import HTTPStatus

import psycopg
from flask import Blueprint, Response, jsonify

from app.api.problems import problem
from app.errors import DatabaseUnavailable
from app.health.errors import SharedBehind
from app.tenancy import OLDEST_SHARED_REVISION
from tenant_schemas.flask import connections

blueprint = Blueprint("health", __name__)

_READINESS = "SELECT version_num FROM shared.alembic_version"


@blueprint.get("/livez")
def livez() -> Response:
    return jsonify(status="alive")


@blueprint.get("/readyz")
def readyz() -> Response:
    """503 while the database does not answer or `shared` is behind. A tenant that is behind does not make it 503,
    because only its own requests are refused; and the answer names no tenant, because anyone may ask.
    """
    try:
        rows = connections().shared.one_statement(_READINESS, (), retry=True)
    except psycopg.errors.UndefinedTable:
        return _not_ready(SharedBehind.code, "Schema shared is missing: run `python -m scripts.migrate`.")
    except psycopg.Error:
        return _not_ready(DatabaseUnavailable.code, "The database does not answer.")
    revision = rows[0][0] if rows else None
    if revision is None or revision < OLDEST_SHARED_REVISION:
        needed = f"this code needs {OLDEST_SHARED_REVISION}: run `python -m scripts.migrate`."
        return _not_ready(SharedBehind.code, f"Schema shared is at revision {revision}; {needed}")
    return jsonify(status="ready")


def _not_ready(code: str, detail: str) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, code, detail)
