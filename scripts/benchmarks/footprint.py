"""The memory that it takes to visit all tenants once: in a service process, and in its PostgreSQL backends.

Each login mode is measured in a new process, so that only the visits count. Needs Linux's /proc.
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

# The first statement of a session on a table: it loads the table, its index and a plan into the caches.
VISIT = sa.text("SELECT count(*) FROM wallets WHERE user_id = '00000000-0000-0000-0000-000000000000'")
OWN, POOL = "own logins", "one pool"
# The memory is read this often during the visits; the largest value counts.
SAMPLES = 20
# Values of /proc are in KiB.
KIB_PER_MIB = 1024


@dataclass(frozen=True, slots=True)
class Footprint:
    """`service_mib` is the growth of the process, `backends_mib` the private memory of all its backends, and
    `largest_backend_mib` that of the largest one; each is the highest value of the run.
    """

    logins: str
    seconds: float
    backends: int
    service_mib: float
    backends_mib: float
    largest_backend_mib: float


def visit_all(settings: Settings, superuser_url: str, tenants: Sequence[Tenant], logins: str) -> Footprint:
    """Visit each tenant once, in a new process with the service's default limits."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_visit_all, (settings, superuser_url, tenants, logins))


def _visit_all(settings: Settings, superuser_url: str, tenants: Sequence[Tenant], logins: str) -> Footprint:
    pool_role = ROLES.pool if logins == POOL else None
    limits = Limits(tenants_per_connection=settings.tenants_per_connection)
    connections = Connections(settings.database_url, settings.tenant_secret, limits, pool_role=pool_role)
    samples: list[tuple[float, list[float]]] = []
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        before, begun = _own_mib(), perf_counter()
        try:
            for number, tenant in enumerate(tenants, start=1):
                with connections.engine(tenant).begin() as connection:
                    connection.execute(VISIT)
                if number % max(1, len(tenants) // SAMPLES) == 0:
                    samples.append((_own_mib() - before, _backends_mib(superuser)))
            seconds = perf_counter() - begun
        finally:
            connections.close()
    return Footprint(
        logins=logins,
        seconds=seconds,
        backends=max(len(backends) for _, backends in samples),
        service_mib=max(own for own, _ in samples),
        backends_mib=max(sum(backends) for _, backends in samples),
        largest_backend_mib=max(max(backends, default=0.0) for _, backends in samples),
    )


def _backends_mib(superuser: psycopg.Connection) -> list[float]:
    """The private memory of each backend of a tenant, without the shared buffers."""
    query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND (usename = %s OR usename ~ %s)"
    found = [_mib(f"/proc/{pid}/status", "RssAnon") for (pid,) in superuser.execute(query, (ROLES.pool, "^tenant_"))]
    return [mib for mib in found if mib]


def _own_mib() -> float:
    return _mib("/proc/self/status", "VmRSS")


def _mib(status: str, field: str) -> float:
    """A field of a process's status; 0 if the process has ended."""
    try:
        lines = Path(status).read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / KIB_PER_MIB for line in lines if line.startswith(f"{field}:")), 0.0)
