"""How much memory it takes to visit a whole fleet once: in a service process, and in its PostgreSQL backends.

Each mode of logging in is measured in a new process, so that nothing but the visits is counted. Needs Linux's /proc.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import psycopg
import sqlalchemy as sa

from app.config import Settings
from app.db import ROLES
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.tenant import Tenant

# What a first request makes a session load: a table, its index, a plan.
VISIT = sa.text("SELECT count(*) FROM wallets WHERE user_id = '00000000-0000-0000-0000-000000000000'")
OWN, POOL = "a login each", "one pool"
# Memory is looked at this many times on the way; the largest counts.
LOOKS = 20
# /proc counts in KiB.
MIB = 1024


@dataclass(frozen=True, slots=True)
class Footprint:
    """`service_mib` is by how much the process has grown; `backends_mib` what all its backends had for themselves, and
    `largest_backend_mib` the largest of them, each at its highest.
    """

    logins: str
    seconds: float
    backends: int
    service_mib: float
    backends_mib: float
    largest_backend_mib: float


def visit_all(settings: Settings, superuser_url: str, tenants: Sequence[Tenant], logins: str) -> Footprint:
    """Visit each once, in a process of its own with the limits that are the service's own defaults."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_visit_all, (settings, superuser_url, tenants, logins))


def _visit_all(settings: Settings, superuser_url: str, tenants: Sequence[Tenant], logins: str) -> Footprint:
    pool_role = ROLES.pool if logins == POOL else None
    limits = Limits(tenants_per_connection=settings.tenants_per_connection)
    connections = Connections(settings.database_url, settings.tenant_secret, limits, pool_role=pool_role)
    looks: list[tuple[float, list[float]]] = []
    with psycopg.connect(superuser_url, autocommit=True) as watcher:
        before, begun = _own_mib(), perf_counter()
        try:
            for number, tenant in enumerate(tenants, start=1):
                with connections.engine(tenant).begin() as connection:
                    connection.execute(VISIT)
                if number % max(1, len(tenants) // LOOKS) == 0:
                    looks.append((_own_mib() - before, _backends_mib(watcher)))
            seconds = perf_counter() - begun
        finally:
            connections.close()
    return Footprint(
        logins=logins,
        seconds=seconds,
        backends=max(len(backends) for _, backends in looks),
        service_mib=max(own for own, _ in looks),
        backends_mib=max(sum(backends) for _, backends in looks),
        largest_backend_mib=max(max(backends, default=0.0) for _, backends in looks),
    )


def _backends_mib(watcher: psycopg.Connection) -> list[float]:
    """What each backend of a tenant has for itself; the shared buffers are everybody's."""
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND (usename = %s OR usename ~ %s)"
    found = [_mib(f"/proc/{pid}/status", "RssAnon") for (pid,) in watcher.execute(query, (ROLES.pool, "^tenant_"))]
    return [mib for mib in found if mib]


def _own_mib() -> float:
    return _mib("/proc/self/status", "VmRSS")


def _mib(status: str, field: str) -> float:
    """Nothing for a process that is on its way out."""
    try:
        lines = Path(status).read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / MIB for line in lines if line.startswith(f"{field}:")), 0.0)
