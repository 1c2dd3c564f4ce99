"""Finds the tenants with something to do, in one statement for all of them, under the relay's own login.

That login reads no event: it may execute one function, which answers with names of schemas. The sweep is the promise
that no event is forgotten; nothing else reminds the relay of a tenant.
"""

from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import TupleRow

from tenant_schemas.registry import COLUMNS, tenant_from_row
from tenant_schemas.tenant import Tenant

# A server that is gone without a word is noticed within ten seconds, less than a relay takes to stop.
SOON_NOTICED: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,  # milliseconds until what was sent must be acknowledged
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}

_TENANTS: Final = f"SELECT {COLUMNS} FROM shared.tenants t ORDER BY t.id"  # noqa: S608
_WAITING: Final = """
    SELECT schema_name, has_events, has_deliveries, has_unpublished FROM shared.events_waiting_v1(%s)"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A tenant that has events without a position, deliveries to webhooks that are due, or numbered events that no
    broker has.
    """

    tenant: Tenant
    has_events: bool
    has_deliveries: bool
    has_unpublished: bool


class Sweep:
    """The relay's connection. It is opened at the first question, and opened again after it broke. One thread uses
    it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[TupleRow] | None = None

    def tenants(self) -> list[Tenant]:
        """The tenants of any status. Raises what `waiting` raises."""
        return [tenant_from_row(row) for row in self._rows(_TENANTS)]

    def waiting(self) -> list[Waiting]:
        """The tenants of any status that have something to do. Raises psycopg's errors, also if the server is away; the
        next call tries again.
        """
        tenants = {tenant.schema_name: tenant for tenant in self.tenants()}
        rows = self._rows(_WAITING, list(tenants))
        return [Waiting(tenants[schema_name], *work) for schema_name, *work in rows]

    def _rows(self, query: LiteralString, *parameters: object) -> list[TupleRow]:
        try:
            return self._connected().execute(query, parameters).fetchall()
        except psycopg.Error:
            self.close()
            raise

    def _connected(self) -> psycopg.Connection[TupleRow]:
        if self._connection is None:
            self._connection = psycopg.connect(self._url, autocommit=True, **SOON_NOTICED)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
