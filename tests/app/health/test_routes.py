"""/livez is about the process alone; /readyz is about everything that the service needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import sqlalchemy as sa
from flask import Flask
from psycopg import sql

from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of, running
from tests.factories.api import Api

NOWHERE = "postgresql://wallet_app:secret-of-the-url@127.0.0.1:1/wallet"


def test_livez_opens_no_connection(database: Database) -> None:
    with running(database) as app:
        response = Api(app).get("/livez")
        assert (response.status_code, response.json) == (200, {"status": "alive"})
        assert app.extensions[EXTENSION].open_count == 0


def test_livez_answers_with_the_database_gone_and_readyz_says_so(database: Database) -> None:
    with running(database, database_url=NOWHERE) as app:
        assert Api(app).get("/livez").status_code == 200
        response = Api(app).get("/readyz")
    problem_of(response, 503, "database_unavailable")
    assert response.headers["Retry-After"]
    assert "secret-of-the-url" not in response.text


def test_readyz_recovers_by_itself_when_the_server_hung_up(fresh_app: Flask, fresh_database: Database) -> None:
    api = Api(fresh_app)
    for _ in range(2):
        assert (api.get("/readyz").status_code, api.get("/readyz").json) == (200, {"status": "ready"})
        fresh_database.as_superuser().execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def empty_database(database: Database) -> Iterator[str]:
    """The service's URL of a database without migrations."""
    name = f"empty_{uuid4().hex[:8]}"
    with psycopg.connect(database.server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield sa.make_url(database.app_url).set(database=name).render_as_string(hide_password=False)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_readyz_says_when_shared_is_missing(database: Database) -> None:
    with empty_database(database) as url, running(database, database_url=url) as app:
        problem = problem_of(Api(app).get("/readyz"), 503, "shared_behind")
        assert "scripts.migrate" in problem["detail"]
        assert Api(app).get(problem["type"]).status_code == 200
        assert Api(app).get("/livez").status_code == 200


def test_readyz_says_when_shared_is_behind_and_not_when_it_is_ahead(fresh_app: Flask, fresh_database: Database) -> None:
    superuser, api = fresh_database.as_superuser(), Api(fresh_app)
    superuser.execute("UPDATE shared.alembic_version SET version_num = '0000'")
    problem_of(api.get("/readyz"), 503, "shared_behind")
    superuser.execute("UPDATE shared.alembic_version SET version_num = '9999'")
    assert api.get("/readyz").status_code == 200, "migrations expand before they contract"
    superuser.execute("DELETE FROM shared.alembic_version")
    problem_of(api.get("/readyz"), 503, "shared_behind")


def test_readyz_stays_ready_beside_tenants_that_are_behind_and_names_none(
    fresh_app: Flask, fresh_database: Database
) -> None:
    """Anyone may ask. Operators see each tenant's revision at GET /api/admin/tenants and in migration_status."""
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET revision = '0000'")
    response = Api(fresh_app).get("/readyz")
    assert (response.status_code, response.json) == (200, {"status": "ready"})


def test_neither_asks_for_a_token_or_a_tenant(api: Api) -> None:
    for path in ("/livez", "/readyz"):
        assert api.get(path, tenant="nope", headers={"Authorization": "Bearer x"}).status_code == 200
