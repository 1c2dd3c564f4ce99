"""Takes every tenant's backup, some at once, under one snapshot. One that fails stops no other.

A tenant that was migrated after the snapshot, or was being migrated, is taken under a snapshot of its own instead: the
form of its tables is no longer what the common snapshot has. Its manifest shows it.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg

from tenant_schemas.backup.backup import back_up_alone, write_checked
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.drift_check import check_drift, find_drift
from tenant_schemas.backup.introspection import Registered, all_registered, find_registered, lock_tables, tables_of
from tenant_schemas.backup.source import Drift, Source, frozen_reading, reading, saying_what_failed
from tenant_schemas.backup.staging import remove_left_overs
from tenant_schemas.backup.writer import Frozen, Shape
from tenant_schemas.errors import TenancyError, TenantChanged
from tenant_schemas.schema_diff.catalog import fingerprints_of

# PostgreSQL locks the tables of each view that it describes, and its table of locks is not endless.
_DESCRIBED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one tenant: its bundle, or why there is none."""

    slug: str
    bundle: Bundle | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Common:
    """What was found of all tenants before the snapshot, and the snapshot."""

    registered: dict[str, Registered]
    fingerprints: dict[str, str]
    drift: Drift
    snapshot: str
    taken_at: datetime


def back_up_all(source: Source, shape: Shape) -> Iterator[Taken]:
    """Each tenant's outcome as it comes, in `shape.jobs` at once. Raises BackupError if none can be read at all."""
    with saying_what_failed("the registry"), source.connect("all") as connection:
        remove_left_overs(shape.folder)
        with reading(connection):
            registered = all_registered(connection)
            fingerprints = _fingerprints(connection, registered)
        tenants = [each.tenant for each in registered]
        drift = {} if shape.with_dump else find_drift(connection, source, tenants, fingerprints)
        with frozen_reading(connection):
            ((snapshot, moment),) = connection.execute("SELECT pg_export_snapshot(), clock_timestamp()")
            frozen = all_registered(connection)
            known = {each.tenant.slug: each for each in registered}
            common = _Common(known, fingerprints, drift, snapshot, moment)
            yield from _take_all(source, shape, common, frozen)


def _fingerprints(connection: psycopg.Connection[Any], registered: Sequence[Registered]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start in range(0, len(registered), _DESCRIBED_AT_ONCE):
        with _letting_go(connection):
            some = [each.tenant for each in registered[start : start + _DESCRIBED_AT_ONCE]]
            found |= fingerprints_of(connection, some)
    return found


def _take_all(source: Source, shape: Shape, common: _Common, frozen: Sequence[Registered]) -> Iterator[Taken]:
    pool = ThreadPoolExecutor(shape.jobs)
    shape = replace(shape, jobs=1)  # The connections are for other tenants, not for one that is large.
    with closing(_Pairs(source, common.snapshot)) as pairs:
        try:
            for taken in as_completed([pool.submit(_take, source, shape, common, pairs, each) for each in frozen]):
                yield taken.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _take(source: Source, shape: Shape, common: _Common, pairs: "_Pairs", registered: Registered) -> Taken:
    slug = registered.tenant.slug
    try:
        with saying_what_failed(slug), pairs.one() as pair:
            try:
                return Taken(slug, _take_in_snapshot(pair, source, shape, common, registered))
            except (psycopg.errors.UndefinedTable, TenantChanged):
                return Taken(slug, back_up_alone(pair.live, source, slug, shape))
    except TenancyError as error:
        return Taken(slug, error=str(error))


def _take_in_snapshot(pair: "_Pair", source: Source, shape: Shape, common: _Common, registered: Registered) -> Bundle:
    """Raises TenantChanged if the tenant's row was another before the snapshot, or is another with all locks held."""
    tenant = registered.tenant
    with _letting_go(pair.frozen):
        tables = tables_of(pair.frozen, tenant.schema_name, source.backup_policy)
        lock_tables(pair.frozen, tenant.schema_name, tables, source.backup_policy)
        if not common.registered.get(tenant.slug) == registered == find_registered(pair.live, tenant.slug):
            raise TenantChanged(f"{tenant.slug} was changed meanwhile.")
        check_drift(tenant, common.drift)
        fingerprint = common.fingerprints.get(tenant.schema_name, "")
        frozen = Frozen(
            registered=registered,
            tables=tables,
            fingerprint=fingerprint,
            snapshot=common.snapshot,
            taken_at=common.taken_at,
        )
        return write_checked(pair.frozen, source, frozen, shape)


class _Pair:
    """Two connections: one that sees the common snapshot, and one that sees what is committed by now."""

    def __init__(self, source: Source, snapshot: str) -> None:
        with ExitStack() as opened:
            self.live = opened.enter_context(source.connect("all"))
            self.frozen = opened.enter_context(source.join("all", snapshot))
            self.close = opened.pop_all().close

    @property
    def is_sound(self) -> bool:
        return not (self.live.closed or self.frozen.closed)


class _Pairs:
    """Pairs of connections, as many as are in use at once. One that broke is not used again."""

    def __init__(self, source: Source, snapshot: str) -> None:
        self._source, self._snapshot = source, snapshot
        self._idle: deque[_Pair] = deque()

    @contextmanager
    def one(self) -> Iterator[_Pair]:
        try:
            pair = self._idle.pop()
        except IndexError:
            pair = _Pair(self._source, self._snapshot)
        try:
            yield pair
        finally:
            if pair.is_sound:
                self._idle.append(pair)
            else:
                pair.close()

    def close(self) -> None:
        for pair in self._idle:
            pair.close()


@contextmanager
def _letting_go(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Going back to a savepoint lets go of the locks of one tenant, or a thousand would fill the server's table."""
    connection.execute("SAVEPOINT tenant")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT tenant")
