"""The cost of binding: a one-row read through Flask, bound to tenants in turn, compared with the same read without
tenants.

Each way is a Flask application with one view. One client calls it as a WSGI server would, without HTTP. With a login
for each tenant, a GET is the SELECT alone. In the other ways a read is BEGIN, SELECT and COMMIT, so only the binding
differs: it is part of the BEGIN message or, as in many other projects, a `SET search_path` of its own for the session.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from statistics import median
from time import perf_counter, process_time
from typing import Any

import sqlalchemy as sa
from flask import Flask, Response
from flask_sqlalchemy import SQLAlchemy
from psycopg import sql
from werkzeug.test import EnvironBuilder

from app.db import ROLES, admin_engine
from app.tenancy import MIGRATIONS
from scripts.benchmarks.installation import Installation, throwaway_installation
from scripts.benchmarks.measurement import BenchmarkFailed, Figures, Slice, measure
from scripts.benchmarks.posting import Announce
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.flask import EXTENSION, TenantDatabase, bind_request
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.tenant import Tenant

CODE: sa.ColumnClause[str] = sa.column("code")
READ = sa.select(CODE).select_from(sa.table("ledger_accounts")).where(CODE == "cash")
FEW = 2
BASELINE = "untenanted"
WAYS = 8
MAKING = "making the tenants"
SECONDS_A_TENANT = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options. `tenants` is the number of tenants in the long rotations."""

    seconds: float
    rounds: int
    tenants: int

    @property
    def expected_seconds(self) -> float:
        return 4 + self.tenants * SECONDS_A_TENANT + WAYS * (self.rounds + 1) * self.seconds


@dataclass(frozen=True, slots=True)
class Report:
    """`cpu_us` is the client's CPU of one read, by way. Other load on the machine disturbs it less than a rate."""

    machine: dict[str, Any]
    figures: Sequence[Figures]
    cpu_us: Mapping[str, float]

    @property
    def baseline_rate(self) -> float:
        return next(each.median_rate for each in self.figures if each.name == BASELINE)


@dataclass(frozen=True, slots=True)
class Way:
    """A way (see measurement.Way): requests to one application, one after the other."""

    name: str
    title: str
    app: Flask
    method: str = "GET"
    cpu_us: list[float] = field(default_factory=list)

    def run(self, seconds: float) -> Slice:
        environment = EnvironBuilder(path="/", method=self.method).get_environ()
        latencies_ms: list[float] = []
        begun = now = perf_counter()
        cpu_begun = process_time()
        statuses: list[str] = []
        while now - begun < seconds:
            body = self.app.wsgi_app(dict(environment), lambda status, *_: statuses.append(status))  # type: ignore[arg-type]
            if b"".join(body) != b"cash":
                raise BenchmarkFailed(f"{self.title}: {statuses[-1]}")
            latencies_ms.append((perf_counter() - now) * 1000)
            now = perf_counter()
        self.cpu_us.append((process_time() - cpu_begun) / len(latencies_ms) * 1e6)
        return Slice(now - begun, latencies_ms, {})


def run(plan: Plan, announce: Announce) -> Report:
    """Set up an installation, measure, and remove everything. Raises BenchmarkFailed."""
    announce(MAKING, 4 + plan.tenants * SECONDS_A_TENANT)
    os.environ["TENANT_LOGINS"] = "shared"  # It creates the pool's role; each way chooses its own login mode.
    with throwaway_installation(1, with_wallets=False, max_connections=plan.tenants + 100) as installation:
        tenants = [*installation.tenants, *_more_tenants(installation, plan.tenants - len(installation.tenants))]
        with _ways(installation, tenants) as ways:
            figures, _ = measure(
                ways, rounds=plan.rounds, seconds=plan.seconds, announce=lambda step: announce(step, plan.seconds)
            )
            # Without the warm-up, which comes first.
            cpu_us = {way.name: median(way.cpu_us[1:]) for way in ways}
        return Report(installation.machine(), figures, cpu_us)


def _more_tenants(installation: Installation, count: int) -> Iterator[Tenant]:
    engine = admin_engine(installation.settings.admin_database_url)
    for number in range(count):
        slug = f"t{number}"
        names = {"slug": slug, "name": slug, "settings": {"currency": "EUR"}}
        yield provision(engine, MIGRATIONS, tenant_secret=installation.settings.tenant_secret, **names)  # type: ignore[arg-type]


@contextmanager
def _ways(installation: Installation, tenants: Sequence[Tenant]) -> Iterator[Sequence[Way]]:
    few, many = tenants[:FEW], tenants
    apps = [_bound(installation, rotation, is_pool=is_pool) for is_pool in (False, True) for rotation in (few, many)]
    try:
        yield (
            Way(BASELINE, "no tenants", _untenanted(installation, tenants[:1], lambda _: None)),
            Way("own-few", f"own logins, {len(few)} tenants", apps[0]),
            Way("own-many", f"own logins, {len(many)} tenants", apps[1]),
            Way("own-begin", f"own logins, {len(few)} tenants, a POST: in a db transaction", apps[0], "POST"),
            Way("pool-few", f"one pool, {len(few)} tenants", apps[2]),
            Way("pool-many", f"one pool, {len(many)} tenants", apps[3]),
            Way("set-few", f"SET search_path, {len(few)} tenants", _untenanted(installation, few, _set_path)),
            Way("set-many", f"SET search_path, {len(many)} tenants", _untenanted(installation, many, _set_path)),
        )
    finally:
        for app in apps:
            app.extensions[EXTENSION].close()


def _bound(installation: Installation, tenants: Sequence[Tenant], *, is_pool: bool) -> Flask:
    """An application on `tenant_schemas`."""
    app, database, turns = Flask(__name__), TenantDatabase(), cycle(tenants)
    limits = Limits(max_connections=len(tenants) + 10, tenants_per_connection=len(tenants) + 1)
    settings = installation.settings
    pool_role = ROLES.pool if is_pool else None
    database.init_tenancy(app, Connections(settings.database_url, settings.tenant_secret, limits, pool_role=pool_role))

    @app.route("/", methods=["GET", "POST"])
    def read() -> str:
        bind_request(next(turns))
        return str(database.session.execute(READ).one().code)

    return app


def _untenanted(
    installation: Installation, tenants: Sequence[Tenant], bind: Callable[[Tenant], sql.Composed | None]
) -> Flask:
    """An application on plain Flask-SQLAlchemy, logged in as a superuser, who can read each tenant's schema."""
    app, database, turns = Flask(__name__), SQLAlchemy(), cycle(tenants)
    url = sa.make_url(installation.server.superuser_url("wallet")).set(drivername="postgresql+psycopg")
    default = {"options": f"-c search_path={tenants[0].schema_name},pg_temp"}
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS={"connect_args": default})
    database.init_app(app)

    @app.get("/")
    def read() -> str:
        path = bind(next(turns))
        if path is not None:
            database.session.connection().exec_driver_sql(path.as_string())
        return str(database.session.execute(READ).one().code)

    @app.after_request
    def commit(response: Response) -> Response:
        database.session.commit()
        return response

    return app


def _set_path(tenant: Tenant) -> sql.Composed:
    return sql.SQL("SET search_path TO {}, pg_temp").format(sql.Identifier(tenant.schema_name))


def as_json(report: Report) -> dict[str, Any]:
    return {
        "machine": report.machine,
        "ways": {
            each.name: {
                "title": each.title,
                "median_per_second": round(each.median_rate, 1),
                "ratio_to_no_tenancy": round(each.median_rate / report.baseline_rate, 3),
                "p50_ms": round(each.p50_ms, 3),
                "p99_ms": round(each.p99_ms, 3),
                "client_cpu_us": round(report.cpu_us[each.name], 1),
                "client_cpu_ratio_to_no_tenancy": round(report.cpu_us[each.name] / report.cpu_us[BASELINE], 3),
            }
            for each in report.figures
        },
    }
