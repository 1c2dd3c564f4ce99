"""The engine's adapter to Flask and Flask-SQLAlchemy; no other module imports them.

`TenantDatabase` is Flask-SQLAlchemy with one change: the binding selects a session's engine, never the model.
`PathTenant` removes the tenant's slug from the URL before routing. A request is one unit of work.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from flask import Flask, Request, Response, current_app, g, has_request_context, request
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from psycopg import sql
from sqlalchemy.orm import SessionTransaction

from tenant_schemas import registry
from tenant_schemas.bound_session import BoundSession, Token
from tenant_schemas.connections import Connections
from tenant_schemas.context import SHARED, Binding, bind, bound, current_binding, unbind
from tenant_schemas.errors import BindingChanged, BindingRefused
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import Tenant

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

EXTENSION = "tenant_schemas"
PATH_SLUG = "tenant_schemas.path_slug"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class TenantSession(BoundSession, Session):
    """A session on the engine of the bound tenant or of the shared side. Its objects belong to their binding, as
    `BoundSession` says.

    In a request with a safe method (GET, HEAD, OPTIONS), plain reads go without BEGIN and COMMIT: PostgreSQL's READ
    COMMITTED gives several SELECTs no common snapshot anyway. All other statements begin the bound db transaction:
    writes, locks, SQL text, streamed results, savepoints. A view whose SELECTs need a common snapshot begins with
    `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`.
    """

    _used: tuple[SessionTransaction, Token, BindingEngine] | None = None

    def get_bind(
        self,
        mapper: Any | None = None,
        clause: Any | None = None,
        bind: sa.engine.Engine | sa.engine.Connection | None = None,
        **kwargs: Any,
    ) -> BindingEngine:
        """The bound engine. Raises NotBound, BindingChanged in an open db transaction, BindingRefused for a `bind`."""
        if bind is not None:
            raise BindingRefused("A session uses the bound tenant's engine, not `bind`. Enter tenant_context(...).")
        token = self.token()
        # SQLAlchemy asks for the engine before it begins. Begin here, so that the first statement is checked too.
        transaction = self.get_transaction() or self.begin()
        if self._used and self._used[0] is transaction:
            _, used, engine = self._used
            if used != token:
                raise BindingChanged(
                    "Another tenant was bound inside an open db transaction: commit or roll back first."
                )
            # Also if the tenant's engine was replaced meanwhile: another one would be another db transaction.
            return engine
        engine = connections().for_binding(current_binding())
        if _has_safe_method():
            engine = engine.reading
        self._used = (transaction, token, engine)
        return engine

    def connection(
        self,
        bind_arguments: Any | None = None,
        execution_options: Any | None = None,
    ) -> sa.Connection:
        """SQLAlchemy would use a `bind` given here without calling `get_bind`. Raises what `get_bind` raises."""
        if bind_arguments and "bind" in bind_arguments:
            self.get_bind(bind=bind_arguments["bind"])
        return super().connection(bind_arguments, execution_options)


def _has_safe_method() -> bool:
    return has_request_context() and request.method in SAFE_METHODS


class TenantDatabase(SQLAlchemy):
    """Flask-SQLAlchemy over the engine's connections. Its own list of engines has the shared side only."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(session_options={"class_": TenantSession}, **kwargs)

    def init_tenancy(self, app: Flask, own: Connections) -> None:
        """Set the application's connections. After each request its session is committed or rolled back and its tenant
        unbound.
        """
        app.extensions[EXTENSION] = own
        app.config["SQLALCHEMY_DATABASE_URI"] = own.shared.url
        self.init_app(app)
        app.after_request(self._finish)
        app.teardown_request(_unbind_request)

    def _make_engine(self, bind_key: str | None, options: dict[str, Any], app: Flask) -> sa.engine.Engine:
        return cast(Connections, app.extensions[EXTENSION]).shared

    def _finish(self, response: Response) -> Response:
        """Commit before a successful response is sent, also after reads: on ROLLBACK psycopg drops its prepared
        statements. Roll back for an error response. Plain reads leave nothing to end, and nothing is sent.
        """
        if self.session.registry.has():
            if response.status_code < 400:  # noqa: PLR2004
                self.session.commit()
            else:
                self.session.rollback()
        return response


def connections() -> Connections:
    """The connections of the current application."""
    return cast(Connections, current_app.extensions[EXTENSION])


def bind_request(binding: Binding) -> None:
    """Bind a tenant or the shared side until the current request ends. Raises BindingRefused outside a request, where
    nothing would end the binding: the next job of the process would run under it.
    """
    if not has_request_context():
        raise BindingRefused(
            "bind_request needs a request. In jobs, commands and tests, enter `with tenant_context(...)` or"
            " `with shared_side()`."
        )
    token = bind(binding)
    g.setdefault("_tenant_schemas_tokens", []).append(token)


def _unbind_request(_: BaseException | None = None) -> None:
    if has_request_context():
        for token in reversed(g.pop("_tenant_schemas_tokens", [])):
            unbind(token)


@contextmanager
def tenant_context(tenant: Tenant | str) -> Iterator[Tenant]:
    """`with tenant_context("km"):` for jobs, shells and tests. A slug is looked up; raises TenantNotFound."""
    if isinstance(tenant, str):
        with connections().shared.begin() as connection:
            tenant = registry.get_tenant(connection, tenant)
    with bound(tenant):
        yield tenant


@contextmanager
def shared_side() -> Iterator[None]:
    """`with shared_side():` for code that works on the shared schema."""
    with bound(SHARED):
        yield


def tenant_has_moved() -> bool:
    """Whether the bound tenant was restored or renamed after this request read the registry: its schema or login is
    another now. Then an error in the old schema is neither the request's nor the service's fault.
    """
    binding = current_binding()
    query = "SELECT schema_name, role_name FROM shared.tenants WHERE id = %s"
    if not isinstance(binding, Tenant):
        return False
    rows = connections().shared.one_statement(query, (binding.id,))
    return rows != [(binding.schema_name, binding.role_name)]


def schema_is_gone() -> bool:
    """Whether the bound tenant's schema does not exist. Another than its present one may be gone: ask
    `tenant_has_moved` first.
    """
    binding = current_binding()
    if not isinstance(binding, Tenant):
        return False
    name = sql.Identifier(binding.schema_name).as_string()
    return connections().shared.one_statement("SELECT pg_catalog.to_regnamespace(%s) IS NULL", (name,)) == [(True,)]


class FlaskRequestParts:
    """A Flask request in the form that resolvers read."""

    def __init__(self, request: Request, claims: Mapping[str, Any]) -> None:
        self._request = request
        self.claims = claims

    @property
    def host(self) -> str:
        return self._request.host

    @property
    def path_slug(self) -> str | None:
        return cast(str | None, self._request.environ.get(PATH_SLUG))

    def header(self, name: str) -> str | None:
        return self._request.headers.get(name)


class PathTenant:
    """WSGI middleware: rewrites `/api/eur/wallet` to `/api/wallet` and keeps `eur` in the WSGI environment.

    The first segment below the prefix is a slug, unless it is in `reserved`, the first segments of the application's
    routes; these can't be slugs.
    """

    def __init__(self, wsgi_app: "WSGIApplication", prefix: str, reserved: frozenset[str]) -> None:
        self._wsgi_app = wsgi_app
        self._prefix = prefix
        self._reserved = reserved

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith(self._prefix):
            first, _, rest = path.removeprefix(self._prefix).partition("/")
            if first and first not in self._reserved:
                environ["PATH_INFO"] = self._prefix + rest
                environ[PATH_SLUG] = first
        return self._wsgi_app(environ, start_response)


def first_segments(app: Flask, prefix: str) -> frozenset[str]:
    """The first segments below `prefix` of all routes, which `PathTenant` must reserve."""
    rules = (rule.rule for rule in app.url_map.iter_rules())
    return frozenset(rule.removeprefix(prefix).partition("/")[0] for rule in rules if rule.startswith(prefix))
