"""Deletes the oldest events of the bound tenant's feed. Movements stay in the ledger: `replay.py` remakes theirs."""

from datetime import timedelta
from typing import Final

from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

DEFAULT_AGE: Final = timedelta(days=30)
# Deleting them takes a tenth of a second or less, for which numbering waits.
MAX_TRIMMED: Final = 5_000

_TRIM: Final = "SELECT events_trim_v1(%s, %s, %s)"


def trim_events(older_than: timedelta = DEFAULT_AGE, max_events: int = MAX_TRIMMED, *, has_broker: bool) -> int:
    """Delete up to `max_events` numbered events from the feed's beginning that are older than this, a day at least, and
    that no webhook needs, nor the broker if there is one. Returns how many: as many as asked for means there may be
    more.

    Locks the feed's head; commits.
    """
    parameters = (older_than, has_broker, max_events)
    ((trimmed,),) = connections().engine(current_tenant()).one_statement(_TRIM, parameters)
    return int(trimmed)
