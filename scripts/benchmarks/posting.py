"""Payments per second: through HTTP, through the service layer, and by pgbench with the same statement.

All three pay from random wallets of the same tenants on the same server, interleaved. Afterwards the books must agree:
the ledger is audited, and holds exactly the payments that the clients were told of.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app import create_app
from app.db import db
from app.ledger import service
from app.ledger.audit import Finding, audit_ledger
from scripts.benchmarks.client_pool import crew
from scripts.benchmarks.clients import AMOUNT_MINOR, http_clients, service_clients
from scripts.benchmarks.installation import Installation, make_database, served, throw_away
from scripts.benchmarks.measurement import Figures, Way, measure
from scripts.benchmarks.pgbench import Pgbench, own_payment_script, prepare_tpcb
from tenant_schemas.flask import EXTENSION, tenant_context

YARDSTICK = "pgbench"
WAYS = 4
# pgbench's manual wants at least as many branches as clients, or they mostly wait for each other.
TPCB_BRANCHES_PER_CLIENT = 2
MAKING, STARTING, AUDITING = "making the server", "starting gunicorn and its clients", "auditing the ledger"
EXPECTED_SECONDS = {MAKING: 4.0, STARTING: 4.0, AUDITING: 3.0}

# Says what begins now, and about how many seconds it will take.
Announce = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for. `workers` and `threads` are gunicorn's; the service layer without HTTP runs in as many
    processes, in which the clients are the threads.
    """

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
    """A tenant's ledger after the run, beside what the clients counted."""

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
    def yardstick(self) -> float:
        return next(each.median_rate for each in self.figures if each.name == YARDSTICK)


def run(plan: Plan, announce: Announce) -> Report:
    """Make everything, measure, check the books, and leave nothing behind. Raises BenchmarkFailed."""
    announce(MAKING, EXPECTED_SECONDS[MAKING])
    with throw_away(plan.wallets) as installation:
        announce(STARTING, EXPECTED_SECONDS[STARTING])
        with _ways(plan, installation) as ways:
            figures, paid = measure(
                ways,
                rounds=plan.rounds,
                seconds=plan.seconds,
                announce=lambda what: announce(what, plan.seconds),
            )
        announce(AUDITING, EXPECTED_SECONDS[AUDITING])
        return Report(installation.machine(), figures, _books(installation, paid))


@contextmanager
def _ways(plan: Plan, installation: Installation) -> Iterator[Sequence[Way]]:
    with ExitStack() as stack:
        api = stack.enter_context(served(plan.workers, plan.threads))
        shifts = [
            (installation.settings, installation.tenants, plan.wallets, threads)
            for threads in _shares(plan.clients, plan.workers)
        ]
        bare = stack.enter_context(crew("service", "through the service layer", service_clients, shifts))
        by_pgbench = _pgbench_ways(plan, installation)
        tokens = installation.member_tokens(plan.wallets)
        payer = (api.port, tokens, installation.currencies)
        http = stack.enter_context(crew("http", "through HTTP", http_clients, [payer] * plan.clients))
        api.wait_until_ready()
        yield (http, bare, *by_pgbench)


def _shares(clients: int, workers: int) -> list[int]:
    """How many of the clients are threads of each worker."""
    shares = Counter(number % workers for number in range(clients))
    return list(shares.values())


def _pgbench_ways(plan: Plan, installation: Installation) -> tuple[Pgbench, Pgbench]:
    """pgbench logs in as one tenant at a time, so its slices take the tenants in turns."""
    logins = {tenant.slug: installation.tenant_url(tenant) for tenant in installation.tenants}
    scripts = {
        slug: own_payment_script(service._POST_OWN, currency=currency, members=plan.wallets, amount_minor=AMOUNT_MINOR)
        for slug, currency in installation.currencies.items()
    }
    tpcb = make_database(installation, "tpcb")
    prepare_tpcb(tpcb, TPCB_BRANCHES_PER_CLIENT * plan.clients)
    return (
        Pgbench(YARDSTICK, "by pgbench, same statement", logins, plan.clients, scripts),
        Pgbench("tpcb", "pgbench's own TPC-B-like", {"": tpcb}, plan.clients),
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
