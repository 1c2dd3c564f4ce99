"""Payments per second: through HTTP, and by pgbench with the service's own statements.

pgbench's own script, which is like TPC-B, is the yardstick. All pay from random wallets of the same tenants on one
server, in turns; the ways called hot pay from one wallet. Afterwards the ledger is audited, and must contain exactly
the payments that the clients counted.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from app import create_app
from app.db import db
from app.ledger import service
from app.ledger.audit import Finding, audit_ledger
from scripts.benchmarks import wrk
from scripts.benchmarks.client_pool import client_pool
from scripts.benchmarks.clients import AMOUNT_MINOR, http_clients
from scripts.benchmarks.installation import (
    Installation,
    RunningService,
    make_database,
    running_service,
    throwaway_installation,
)
from scripts.benchmarks.measurement import Figures, Way, measure
from scripts.benchmarks.pgbench import Pgbench, own_payment_script, prepare_tpcb
from scripts.benchmarks.wrk import Wrk
from tenant_schemas.flask import EXTENSION, tenant_context

BASELINE = "tpcb"
WAYS = 9
# pgbench's manual: with fewer branches than clients, the clients mostly wait for each other.
TPCB_BRANCHES_PER_CLIENT = 2
MAKING, STARTING, AUDITING = "making the server", "starting gunicorn and its clients", "auditing the ledger"
EXPECTED_SECONDS = {MAKING: 4.0, STARTING: 4.0, AUDITING: 3.0}

# Called when a step begins, with its name and the expected seconds.
Announce = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options. `workers` and `threads` are gunicorn's."""

    seconds: float
    rounds: int
    clients: int
    wallets: int
    workers: int
    threads: int

    @property
    def expected_seconds(self) -> float:
        return sum(EXPECTED_SECONDS.values()) + WAYS * (self.rounds + 1) * self.seconds


@dataclass(frozen=True, slots=True)
class Books:
    """The payments in a tenant's ledger after the run, and those that the clients counted."""

    tenant: str
    counted: int
    posted: int
    findings: tuple[Finding, ...]

    @property
    def agree(self) -> bool:
        return self.counted == self.posted and not self.findings


@dataclass(frozen=True, slots=True)
class Report:
    machine: dict[str, Any]
    figures: Sequence[Figures]
    books: Sequence[Books]

    @property
    def baseline_rate(self) -> float:
        return next(each.median_rate for each in self.figures if each.name == BASELINE)


def run(plan: Plan, announce: Announce) -> Report:
    """Set up an installation, measure, audit the ledger, and remove everything. Raises BenchmarkFailed."""
    announce(MAKING, EXPECTED_SECONDS[MAKING])
    with throwaway_installation(plan.wallets) as installation:
        announce(STARTING, EXPECTED_SECONDS[STARTING])
        with _ways(plan, installation) as ways:
            figures, paid = measure(
                ways.ways,
                rounds=plan.rounds,
                seconds=plan.seconds,
                announce=lambda step: announce(step, plan.seconds),
                metered=ways.metered,
            )
        announce(AUDITING, EXPECTED_SECONDS[AUDITING])
        return Report(installation.machine(), figures, _books(installation, paid))


@dataclass(frozen=True, slots=True)
class _Started:
    """The ways, and the processes whose CPU time counts, by name."""

    ways: Sequence[Way]
    metered: Mapping[str, int]


@contextmanager
def _ways(plan: Plan, installation: Installation) -> Iterator[_Started]:
    with ExitStack() as stack:
        together = stack.enter_context(running_service(plan.workers, plan.threads))
        alone = stack.enter_context(running_service(plan.workers, plan.threads, GROUP_POSTING="false"))
        by_pgbench = _pgbench_ways(plan, installation)
        tokens = installation.member_tokens(plan.wallets)

        def http(name: str, title: str, service: RunningService, tokens: Sequence[str]) -> Way:
            client = (service.port, tokens, installation.currencies)
            return stack.enter_context(client_pool(name, title, http_clients, [client] * plan.clients))

        ways: list[Way] = [
            http("http", "through HTTP", together, tokens),
            http("http-alone", "through HTTP, no group posting", alone, tokens),
            http("http-hot", "through HTTP, hot wallet", together, tokens[:1]),
            http("http-hot-alone", "through HTTP, hot wallet, no group posting", alone, tokens[:1]),
        ]
        if wrk.program():
            logins = {tenant.slug: installation.tenant_url(tenant) for tenant in installation.tenants}
            ways += [
                Wrk("wrk", "through HTTP, wrk", together.port, tokens, installation.currencies, logins, plan.clients)
            ]
        together.wait_until_ready()
        alone.wait_until_ready()
        metered = {
            "service": together.gunicorn.pid,
            "service alone": alone.gunicorn.pid,
            "postgresql": installation.postmaster_pid,
            "clients": os.getpid(),
        }
        yield _Started((*ways, *by_pgbench), metered)


def _pgbench_ways(plan: Plan, installation: Installation) -> tuple[Pgbench, ...]:
    """pgbench logs in as one tenant at a time, so its slices alternate between the tenants."""
    logins = {tenant.slug: installation.tenant_url(tenant) for tenant in installation.tenants}

    def by_pgbench(name: str, title: str, statement: str, members: int) -> Pgbench:
        scripts = {
            slug: own_payment_script(name, statement, currency=currency, members=members, amount_minor=AMOUNT_MINOR)
            for slug, currency in installation.currencies.items()
        }
        return Pgbench(name, title, logins, plan.clients, scripts)

    tpcb = make_database(installation, "tpcb")
    prepare_tpcb(tpcb, TPCB_BRANCHES_PER_CLIENT * plan.clients)
    return (
        by_pgbench("pgbench", "by pgbench, the posting statement", service._POST, plan.wallets),
        by_pgbench("pgbench-pay", "by pgbench, with the proof of standing", service._PAY, plan.wallets),
        by_pgbench("pgbench-hot", "by pgbench, hot wallet", service._POST, 1),
        Pgbench(BASELINE, "pgbench's own TPC-B-like", {"": tpcb}, plan.clients),
    )


def _books(installation: Installation, paid: Counter[str]) -> list[Books]:
    app = create_app(installation.settings)
    try:
        with app.app_context():
            return [_books_of(tenant.slug, paid[tenant.slug]) for tenant in installation.tenants]
    finally:
        app.extensions[EXTENSION].close()


def _books_of(slug: str, counted: int) -> Books:
    with tenant_context(slug):
        payments = sa.text("SELECT count(*) FROM wallet_transactions WHERE type = 'payment'")
        posted = db.session.execute(payments).scalar_one()
        db.session.commit()
        return Books(slug, counted, posted, audit_ledger().findings)


def as_json(report: Report) -> dict[str, Any]:
    return {
        "machine": report.machine,
        "ways": {each.name: _way_as_json(each, report.baseline_rate) for each in report.figures},
        "books": {books.tenant: {**asdict(books), "agree": books.agree} for books in report.books},
    }


def _way_as_json(figures: Figures, baseline_rate: float) -> dict[str, Any]:
    return {
        "title": figures.title,
        "median_per_second": round(figures.median_rate, 1),
        "slices_per_second": [round(rate, 1) for rate in figures.rates],
        "ratio_to_tpcb": round(figures.median_rate / baseline_rate, 3),
        "p50_ms": round(figures.p50_ms, 3),
        "p99_ms": round(figures.p99_ms, 3),
        "cpu_us": {name: round(microseconds) for name, microseconds in figures.cpu_us.items()},
    }
