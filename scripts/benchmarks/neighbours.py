"""The latency of some members' payments alone, and beside each kind of noise that other callers can make.

The payers are a few members of one tenant. The noise is one of: another tenant's requests that all hang, log-ins of a
stranger, one member's loops in the payers' own tenant, and statements as PDF of another tenant's member. All ways take
turns in one run, with the service's default limits. Only rates are unlimited, because a flood that its rate refuses
makes no noise.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any

import psycopg

from app.config import DATABASE_NAME
from scripts.benchmarks.client_pool import ClientPool, client_pool
from scripts.benchmarks.clients import REFUSED, RequestLoop, member_id, refusable_http_clients
from scripts.benchmarks.installation import Installation, running_service, throwaway_installation
from scripts.benchmarks.measurement import Figures, Slice, measure
from scripts.benchmarks.posting import EXPECTED_SECONDS, MAKING, STARTING, Announce

NOISY, QUIET_TENANT = "eur", "km"
QUIET = "quiet"
WAYS = 5
LOCKED_SECONDS = 0.5
RELEASED_SECONDS = 0.02
STATEMENT_ROWS = 1_000
STATEMENT_PATH = "/api/wallet/statement.pdf?from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"

# Makes noise for as long as it is entered, and counts the answers by status.
Noise = Callable[[Counter[str]], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options. `noise` is the number of clients that hang or loop, `log_ins` of those that log in, `statements` of
    those that read statements.
    """

    seconds: float
    rounds: int
    clients: int
    noise: int
    log_ins: int
    statements: int
    wallets: int
    workers: int
    threads: int

    @property
    def expected_seconds(self) -> float:
        return EXPECTED_SECONDS[MAKING] + EXPECTED_SECONDS[STARTING] + WAYS * (self.rounds + 1) * self.seconds


@dataclass(frozen=True, slots=True)
class Report:
    """`refused` has for each way the number of the payers' payments that got 429, `answers` the noise's answers by
    status.
    """

    machine: dict[str, Any]
    figures: Sequence[Figures]
    refused: Mapping[str, int]
    answers: Mapping[str, Mapping[str, int]]

    def ratio(self, milliseconds: float) -> float:
        """A latency, divided by the median latency of the payers alone."""
        return milliseconds / next(each.p50_ms for each in self.figures if each.name == QUIET)


def run(plan: Plan, announce: Announce) -> Report:
    """Set up an installation, measure, and remove everything. Raises BenchmarkFailed."""
    announce(MAKING, EXPECTED_SECONDS[MAKING])
    with throwaway_installation(plan.wallets) as installation:
        announce(STARTING, EXPECTED_SECONDS[STARTING])
        with _ways(plan, installation) as ways:
            figures, _ = measure(
                ways, rounds=plan.rounds, seconds=plan.seconds, announce=lambda step: announce(step, plan.seconds)
            )
        refused = {way.name: way.refused[REFUSED] for way in ways}
        return Report(installation.machine(), figures, refused, {way.name: dict(way.answers) for way in ways})


@dataclass(frozen=True, slots=True)
class Payers:
    """A way (see measurement.Way): the payers pay, while `noise` goes on."""

    name: str
    title: str
    clients: ClientPool
    noise: Noise
    answers: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float) -> Slice:
        with self.noise(self.answers):
            done = self.clients.run(seconds)
        self.refused.update({REFUSED: done.paid.get(REFUSED, 0)})
        return done


@contextmanager
def _ways(plan: Plan, installation: Installation) -> Iterator[Sequence[Payers]]:
    with ExitStack() as stack:
        service = stack.enter_context(running_service(plan.workers, plan.threads))
        tokens = installation.member_tokens(plan.wallets)
        arguments = [(service.port, tokens[1:], {QUIET_TENANT: installation.currencies[QUIET_TENANT]})] * plan.clients
        clients = stack.enter_context(client_pool("payers", "payers", refusable_http_clients, arguments))
        _fill_wallet(installation)
        service.wait_until_ready()
        member = partial(RequestLoop, service.port, token=tokens[0])
        payment = partial(member, "POST", "/api/wallet/payments", NOISY, body={"amount": "0.01"})
        loops = partial(member, "GET", "/api/wallet/transactions", QUIET_TENANT)
        statements = partial(member, "GET", STATEMENT_PATH, NOISY)
        log_ins = partial(RequestLoop, service.port, "POST", "/api/auth/login", body={"email": "x", "password": "x"})
        yield [
            Payers(name, title, clients, noise)
            for name, title, noise in (
                (QUIET, "alone", lambda _: nullcontext()),
                (
                    "hanging",
                    f"beside {plan.noise} requests of another tenant that hang",
                    partial(_hanging, installation, [payment() for _ in range(plan.noise)]),
                ),
                (
                    "log_ins",
                    f"beside {plan.log_ins} log-ins of a stranger at once",
                    partial(_noise, [log_ins() for _ in range(plan.log_ins)]),
                ),
                (
                    "loops",
                    f"beside {plan.noise} loops of a member of the same tenant",
                    partial(_noise, [loops() for _ in range(plan.noise)]),
                ),
                (
                    "statements",
                    f"beside {plan.statements} PDFs of another tenant's member at once",
                    partial(_noise, [statements() for _ in range(plan.statements)]),
                ),
            )
        ]


@contextmanager
def _noise(loops: Sequence[RequestLoop], answers: Counter[str]) -> Iterator[None]:
    stopped = Event()
    with ThreadPoolExecutor(len(loops)) as threads:
        work = [threads.submit(loop.run, stopped) for loop in loops]
        try:
            yield
        finally:
            stopped.set()
        for each in work:
            answers.update(each.result())


@contextmanager
def _hanging(installation: Installation, loops: Sequence[RequestLoop], answers: Counter[str]) -> Iterator[None]:
    stopped = Event()
    with ThreadPoolExecutor(1) as thread:
        lock = thread.submit(_lock_wallet, installation, stopped)
        try:
            with _noise(loops, answers):
                yield
        finally:
            stopped.set()
        lock.result()


def _lock_wallet(installation: Installation, stopped: Event) -> None:
    url = installation.server.superuser_url(DATABASE_NAME)
    with psycopg.connect(url, options=f"-c search_path={_noisy_schema(installation)}") as connection:
        while not stopped.is_set():
            connection.execute("SELECT FROM wallets WHERE user_id = %s FOR UPDATE", (member_id(0),))
            stopped.wait(LOCKED_SECONDS)
            connection.rollback()
            stopped.wait(RELEASED_SECONDS)


def _fill_wallet(installation: Installation) -> None:
    """Post the movements of the statement."""
    tenant = next(tenant for tenant in installation.tenants if tenant.slug == NOISY)
    with psycopg.connect(installation.tenant_url(tenant), autocommit=True) as connection:
        connection.execute(
            "SELECT count(*) FROM wallets w, generate_series(1, %s) n, LATERAL wallet_post_v2("
            "w.id, 'deposit', 1, 'statement ' || n, NULL, NULL, NULL, NULL, NULL, NULL) WHERE w.user_id = %s",
            (STATEMENT_ROWS, member_id(0)),
        )


def _noisy_schema(installation: Installation) -> str:
    return next(tenant.schema_name for tenant in installation.tenants if tenant.slug == NOISY)


COLUMNS = (
    *("the payers", "per second", "p50 ms", "p95 ms", "p99 ms", "p95 to quiet p50", "refused"),
    "answers to the noise",
)


def rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            each.title,
            f"{each.median_rate:,.0f}",
            f"{each.p50_ms:.2f}",
            f"{each.p95_ms:.2f}",
            f"{each.p99_ms:.2f}",
            f"{report.ratio(each.p95_ms):.2f} ×",
            f"{report.refused[each.name]:,}",
            ", ".join(f"{status}: {number:,}" for status, number in sorted(report.answers[each.name].items())),
        )
        for each in report.figures
    ]


def as_json(report: Report) -> dict[str, Any]:
    ways = {
        each.name: {
            "title": each.title,
            "median_per_second": round(each.median_rate, 1),
            "p50_ms": round(each.p50_ms, 3),
            "p95_ms": round(each.p95_ms, 3),
            "p99_ms": round(each.p99_ms, 3),
            "p50_to_quiet_p50": round(report.ratio(each.p50_ms), 3),
            "p95_to_quiet_p50": round(report.ratio(each.p95_ms), 3),
            "p99_to_quiet_p50": round(report.ratio(each.p99_ms), 3),
            "refused": report.refused[each.name],
            "noise": report.answers[each.name],
        }
        for each in report.figures
    }
    return {"machine": report.machine, "ways": ways}
