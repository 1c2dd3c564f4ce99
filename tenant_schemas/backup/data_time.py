"""The time of a bundle's data. It may be long before the backup: on a server that was restored to a point in time, on a
standby, and in a retired schema.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg

from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.printable import printable

# After a recovery, pg_last_xact_replay_timestamp() stays until the next start, and the settings until they are removed.
_RECOVERY: Final = """
    SELECT pg_is_in_recovery(), pg_last_xact_replay_timestamp(), (
        SELECT string_agg(name || ' = ' || setting, ', ' ORDER BY name) FROM pg_settings
        WHERE name IN ('recovery_target', 'recovery_target_lsn', 'recovery_target_name', 'recovery_target_time',
            'recovery_target_xid') AND setting <> '')"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTime:
    """`as_of` is the moment after which the data has no change. `last_change_at` is that of the last change, by the
    BackupPolicy; None if there was none. `recovery_target` names the target of a server that was restored to a point in
    time. `retired_at` is the moment at which a restore replaced the data.
    """

    as_of: datetime
    last_change_at: datetime | None
    recovery_target: str | None
    retired_at: datetime | None

    @property
    def is_past(self) -> bool:
        """Whether this is not the data that the tenant had when the backup was taken."""
        return self.recovery_target is not None or self.retired_at is not None

    def __str__(self) -> str:
        last = f"last change {_shown(self.last_change_at)}" if self.last_change_at else "no change in it"
        target = f", recovered to {printable(self.recovery_target)}" if self.recovery_target else ""
        retired = f", replaced {_shown(self.retired_at)}" if self.retired_at else ""
        return f"{_shown(self.as_of)} ({last}{target}{retired})"


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def read_data_time(
    connection: psycopg.Connection[Any],
    backup_policy: BackupPolicy,
    taken_at: datetime,
    retired_at: datetime | None = None,
) -> DataTime:
    """The time of the data that the bound schema has in the connection's snapshot, taken at `taken_at`."""
    last_change_at = backup_policy.last_change(connection) if backup_policy.last_change else None
    ((in_recovery, replayed_to, target),) = connection.execute(_RECOVERY)
    as_of = retired_at or taken_at
    if retired_at is None and (in_recovery or target):
        as_of = max((each for each in (replayed_to, last_change_at) if each), default=taken_at)
    return DataTime(
        as_of=as_of,
        last_change_at=last_change_at,
        recovery_target=target and printable(target),
        retired_at=retired_at,
    )
