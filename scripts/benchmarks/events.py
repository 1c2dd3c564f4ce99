"""What events cost: payments with the feed's trigger, with a relay beside them and under a held snapshot, each against
payments without the trigger; how long the relay's question to many tenants takes; how far numbering lags.

pgbench pays with the service's own statement, in one tenant after the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from threading import Event, Thread
from time import monotonic
from typing import Any, Final

import psycopg
from psycopg import sql

from app import create_app
from app.config import DATABASE_NAME
from app.db import admin_engine
from app.ledger import service
from app.relay.relay import SWEEP_SECONDS, Relay
from app.relay.sweep import Sweep
from app.relay.upkeep import Upkeep
from app.tenancy import MIGRATIONS
from scripts.benchmarks.clients import AMOUNT_MINOR
from scripts.benchmarks.installation import Installation, throwaway_installation
from scripts.benchmarks.measurement import BenchmarkFailed, Figures, Slice, measure, percentile
from scripts.benchmarks.pgbench import Pgbench, own_payment_script
from scripts.benchmarks.posting import Announce
from tenant_schemas.flask import EXTENSION
from tenant_schemas.lifecycle.provision import new_tenant, provision_many

BASELINE: Final = "without"
SAMPLE_SECONDS: Final = 0.1
SWEEPS: Final = 20
# Payments a second while the lag is measured: about what clients reach through HTTP on two cores. If pgbench pays as
# fast as it can, numbering gets too little of the processors, and the lag is only as long as the slice.
PACE: Final = 1000
PROVISION_SECONDS: Final = 0.05  # for each tenant, roughly
# The age of the oldest event without a position, in seconds, over all tenants with wallets.
_AGE: Final = """
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8
    FROM (SELECT at FROM {}.events WHERE position IS NULL ORDER BY n LIMIT 1) oldest"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options. `tenants` are those of the sweep."""

    seconds: float
    rounds: int
    clients: int
    wallets: int
    tenants: int

    @property
    def expected_seconds(self) -> float:
        return 10.0 + 6 * (self.rounds + 1) * self.seconds + self.tenants * PROVISION_SECONDS


@dataclass(frozen=True, slots=True)
class Report:
    """`payment_ms` is one payment of a single client. `lags_ms` are ages of the oldest event without a position."""

    machine: dict[str, Any]
    figures: Sequence[Figures]
    lags_ms: Mapping[str, Sequence[float]]
    stamped_per_second: float
    sweep_ms: float
    payment_ms: float

    @property
    def baseline_rate(self) -> float:
        return next(each.median_rate for each in self.figures if each.name == BASELINE)

    @property
    def sweep_in_payments(self) -> float:
        return self.sweep_ms / self.payment_ms


@dataclass(slots=True)
class _Paying:
    """A way: payments by pgbench, with or without the trigger, a relay and a snapshot that is held meanwhile.

    A paced one measures the lag, and starts when all events are numbered.
    """

    pgbench: Pgbench
    installation: Installation
    has_trigger: bool = True
    has_relay: bool = False
    has_snapshot: bool = False
    lags_ms: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.pgbench.name

    @property
    def title(self) -> str:
        return self.pgbench.title

    def run(self, seconds: float) -> Slice:
        with ExitStack() as stack:
            _switch_trigger(self.installation, is_on=self.has_trigger)
            if self.has_snapshot:
                stack.enter_context(_held_snapshot(self.installation))
            if self.pgbench.pace is not None:
                _stamping_rate(self.installation)
                stack.enter_context(_sampled_lags(self.installation, self.lags_ms))
            if self.has_relay:
                stack.enter_context(_relay(self.installation))
            return self.pgbench.run(seconds)


def run(plan: Plan, announce: Announce) -> Report:
    """Set up an installation, measure, and remove everything. Raises BenchmarkFailed."""
    announce("making the server", 5.0)
    with throwaway_installation(plan.wallets) as installation:
        ways = _ways(plan, installation)
        figures, _ = measure(
            ways,
            rounds=plan.rounds,
            seconds=plan.seconds,
            announce=lambda step: announce(step, plan.seconds),
        )
        announce("numbering", plan.seconds + 5.0)
        next(way for way in ways if way.name == "trigger").run(plan.seconds)
        stamped = _stamping_rate(installation)
        payment_ms = percentile(
            sorted(_pgbench("single", "one client", installation, plan, 1).run(2.0).latencies_ms), 50
        )
        announce("making tenants", plan.tenants * PROVISION_SECONDS)
        _make_tenants(installation, plan.tenants)
        lags = {way.name: sorted(way.lags_ms) for way in ways if way.lags_ms}
        return Report(installation.machine(), figures, lags, stamped, _sweep_ms(installation), payment_ms)


def as_json(report: Report) -> dict[str, Any]:
    return {
        "machine": report.machine,
        "ways": {
            each.name: {
                "title": each.title,
                "median_per_second": round(each.median_rate, 1),
                "slices_per_second": [round(rate, 1) for rate in each.rates],
                "ratio_to_without": round(each.median_rate / report.baseline_rate, 3),
            }
            for each in report.figures
        },
        "lag_ms": {
            name: {"p50": round(percentile(lags, 50)), "p99": round(percentile(lags, 99))}
            for name, lags in report.lags_ms.items()
        },
        "stamped_per_second": round(report.stamped_per_second),
        "sweep_ms": round(report.sweep_ms, 2),
        "sweep_in_payments": round(report.sweep_in_payments, 1),
    }


def _ways(plan: Plan, installation: Installation) -> list[_Paying]:
    def by_pgbench(name: str, title: str, pace: int | None = None) -> Pgbench:
        return _pgbench(name, title, installation, plan, plan.clients, pace=pace)

    relay, snapshot = "with the trigger and a relay", "with both, and a held snapshot"
    paced = f"{PACE} a second"
    return [
        _Paying(by_pgbench(BASELINE, "without the trigger"), installation, has_trigger=False),
        _Paying(by_pgbench("trigger", "with the trigger"), installation),
        _Paying(by_pgbench("relay", relay), installation, has_relay=True),
        _Paying(by_pgbench("snapshot", snapshot), installation, has_relay=True, has_snapshot=True),
        _Paying(by_pgbench("paced", f"{paced}, {relay}", PACE), installation, has_relay=True),
        _Paying(
            by_pgbench("paced-snapshot", f"{paced}, {snapshot}", PACE),
            installation,
            has_relay=True,
            has_snapshot=True,
        ),
    ]


def _pgbench(
    name: str, title: str, installation: Installation, plan: Plan, clients: int, *, pace: int | None = None
) -> Pgbench:
    scripts = {
        slug: own_payment_script(
            name, service._POST, currency=currency, members=plan.wallets, amount_minor=AMOUNT_MINOR
        )
        for slug, currency in installation.currencies.items()
    }
    logins = {tenant.slug: installation.tenant_url(tenant) for tenant in installation.tenants}
    return Pgbench(name, title, logins, clients, scripts, pace)


def _switch_trigger(installation: Installation, *, is_on: bool) -> None:
    switch = sql.SQL("ENABLE" if is_on else "DISABLE")
    with psycopg.connect(installation.server.superuser_url(DATABASE_NAME), autocommit=True) as connection:
        for tenant in installation.tenants:
            table = sql.Identifier(tenant.schema_name, "wallet_transactions")
            connection.execute(sql.SQL("ALTER TABLE {} {} TRIGGER wallet_transactions_event").format(table, switch))


@contextmanager
def _held_snapshot(installation: Installation) -> Iterator[None]:
    with psycopg.connect(installation.server.superuser_url(DATABASE_NAME)) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM shared.tenants")
        yield
        connection.rollback()


@contextmanager
def _relay(installation: Installation) -> Iterator[None]:
    """A relay in this process, without broker and webhooks."""
    app, stop = create_app(installation.settings), Event()
    sweep = Sweep(installation.settings.relay_database_url)
    relay = Relay(app, sweep, None, Upkeep(timedelta(days=30), has_broker=False), threads=2, senders=1)
    thread = Thread(target=relay.run, args=(stop, SWEEP_SECONDS))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sweep.close()
        app.extensions[EXTENSION].close()


@contextmanager
def _sampled_lags(installation: Installation, lags_ms: list[float]) -> Iterator[None]:
    stop = Event()

    def sample() -> None:
        with psycopg.connect(installation.server.superuser_url(DATABASE_NAME), autocommit=True) as connection:
            while not stop.wait(SAMPLE_SECONDS):
                lags_ms.append(1000 * max(_age(connection, tenant.schema_name) for tenant in installation.tenants))

    thread = Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _age(connection: psycopg.Connection[Any], schema_name: str) -> float:
    row = connection.execute(sql.SQL(_AGE).format(sql.Identifier(schema_name))).fetchone()
    return float(row[0]) if row else 0.0


def _stamping_rate(installation: Installation) -> float:
    """Events a second that one process numbers, in batches of 500, until none is left."""
    stamped, seconds = 0, 0.0
    for tenant in installation.tenants:
        with psycopg.connect(installation.tenant_url(tenant), autocommit=True) as connection:
            started = monotonic()
            while (number := _stamp(connection)) > 0:
                stamped += number
            seconds += monotonic() - started
    return stamped / seconds


def _stamp(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT events_stamp_v1(500)").fetchone()
    return int(row[0]) if row else 0


def _make_tenants(installation: Installation, count: int) -> None:
    """Tenants of the sweep, beside those with wallets."""
    engine = admin_engine(installation.settings.admin_database_url)
    planned = [
        new_tenant(MIGRATIONS, slug=f"t{number}", name=f"t{number}", settings={"currency": "EUR"})
        for number in range(count - len(installation.tenants))
    ]
    for tenant, error in provision_many(engine, MIGRATIONS, planned, installation.settings.tenant_secret):
        if error:
            raise BenchmarkFailed(f"{tenant.slug} was not provisioned: {error}")


def _sweep_ms(installation: Installation) -> float:
    """The median time of the relay's question to all tenants, after the first one, which reads their catalogues."""
    sweep = Sweep(installation.settings.relay_database_url)
    try:
        sweep.waiting()
        return median(_timed_ms(sweep) for _ in range(SWEEPS))
    finally:
        sweep.close()


def _timed_ms(sweep: Sweep) -> float:
    started = monotonic()
    sweep.waiting()
    return 1000 * (monotonic() - started)
