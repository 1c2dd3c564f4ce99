"""Reads the registry every few seconds and closes the connections of tenants that were suspended or whose row changed,
also in a process that gets no more requests for them.

No request depends on it: each request reads the registry itself. A process without tenant engines sends no query.
"""

from functools import partial
from threading import Event

from tenant_schemas.connections import Connections
from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.worker_loop import start_worker


def start_registry_watcher(connections: Connections, seconds: float) -> Event:
    """Call `check_registry` every `seconds`, or never if it is 0, until the returned event is set. Call this after the
    process was forked. If the registry can't be read, connections stay as they are.
    """
    return start_worker("registry-watcher", seconds, partial(check_registry, connections))


def check_registry(connections: Connections) -> None:
    """Compare the tenants that this process knows with the registry, in one query; retire the engines of those that
    differ. Raises what the query raises.
    """
    known = connections.known_tenants()
    if known:
        query = f"SELECT {COLUMNS} FROM shared.tenants t WHERE t.id = ANY(%s)"  # noqa: S608
        rows = connections.shared.one_statement(query, ([tenant.id for tenant in known],), retry=True)
        connections.refresh(known, [tenant_from_row(row) for row in rows])
