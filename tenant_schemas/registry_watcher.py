"""Looks at the registry every few seconds, so that a tenant's connections are closed soon after it was suspended or its
row was changed, in every process, also in one that gets no more requests for it.

No request depends on it: each asks the registry itself. It asks only while this process knows any tenant.
"""

import logging
from threading import Event, Thread

from tenant_schemas.connections import Connections
from tenant_schemas.registry import COLUMNS, tenant_from_row

log = logging.getLogger(__name__)


def start_registry_watcher(connections: Connections, seconds: float) -> Event:
    """Look every so many seconds, or never if it is 0, in a thread that ends with the process or when the event that
    is returned is set. To be called in the process that serves, after it was forked.
    """
    stop = Event()
    if seconds:
        Thread(target=_look_every, args=(connections, seconds, stop), name="registry-watch", daemon=True).start()
    return stop


def _look_every(connections: Connections, seconds: float, stop: Event) -> None:
    while not stop.wait(seconds):
        try:
            check_registry(connections)
        except Exception:  # Whatever it is, the next look may find the database well again.
            log.warning("The registry can't be read; the tenants' connections stay as they are.", exc_info=True)


def check_registry(connections: Connections) -> None:
    """Compare what this process knows of its tenants with the registry, by one query. Raises what that raises."""
    known = connections.known_tenants()
    if known:
        query = f"SELECT {COLUMNS} FROM shared.tenants t WHERE t.id = ANY(%s)"  # noqa: S608
        rows = connections.shared.one_statement(query, ([tenant.id for tenant in known],), retry=True)
        connections.refresh(known, [tenant_from_row(row) for row in rows])
