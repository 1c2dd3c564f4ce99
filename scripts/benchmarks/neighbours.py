"""The latency of one tenant's payments while another tenant saturates the service with slow requests.

All clients of the noisy tenant pay from one wallet. A session keeps its row locked, half a second at a time, so that
every request that the service accepts from them hangs. The quiet tenant's clients pay as usual: alone, beside the noisy
tenant with a cap on its concurrent requests, and beside it without a cap. All three take turns in one run.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import psycopg

from app.config import DATABASE_NAME
from app.db import admin_engine
from scripts.benchmarks.client_pool import ClientPool, client_pool
from scripts.benchmarks.clients import HttpClient, PaymentRefused, http_clients, member_id
from scripts.benchmarks.installation import Installation, running_service, throwaway_installation
from scripts.benchmarks.measurement import BenchmarkFailed, Figures, Slice, measure
from scripts.benchmarks.posting import EXPECTED_SECONDS, MAKING, STARTING, Announce
from tenant_schemas.registry import change_settings
from tenant_schemas.tenant import Tenant

NOISY = "eur"
QUIET, CAPPED, UNCAPPED = "quiet", "beside", "uncapped"
LOCKED_SECONDS = 0.5
RELEASED_SECONDS = 0.02
# A refused client of the noisy tenant tries again after this time, though the service tells it to wait a second.
RETRY_SECONDS = 0.1
TOO_MANY_REQUESTS = " 429 "


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options. `noise` is the number of the noisy tenant's clients, `cap` its limit of concurrent requests in each
    process.
    """

    seconds: float
    rounds: int
    clients: int
    noise: int
    cap: int
    wallets: int
    workers: int
    threads: int

    @property
    def expected_seconds(self) -> float:
        return EXPECTED_SECONDS[MAKING] + EXPECTED_SECONDS[STARTING] + 3 * (self.rounds + 1) * self.seconds


@dataclass(frozen=True, slots=True)
class Report:
    """`answers` has for each way the numbers of paid and refused requests of the noisy tenant."""

    machine: dict[str, Any]
    figures: Sequence[Figures]
    answers: Mapping[str, Mapping[str, int]]

    def ratio(self, name: str) -> float:
        """The p99 of a way, divided by that of the quiet tenant alone."""
        p99_ms = {each.name: each.p99_ms for each in self.figures}
        return p99_ms[name] / p99_ms[QUIET]


def run(plan: Plan, announce: Announce) -> Report:
    """Set up an installation, measure, and remove everything. Raises BenchmarkFailed."""
    announce(MAKING, EXPECTED_SECONDS[MAKING])
    with throwaway_installation(plan.wallets) as installation:
        announce(STARTING, EXPECTED_SECONDS[STARTING])
        with _ways(plan, installation) as ways:
            figures, _ = measure(
                ways, rounds=plan.rounds, seconds=plan.seconds, announce=lambda step: announce(step, plan.seconds)
            )
        return Report(installation.machine(), figures, {way.name: dict(way.answers) for way in ways})


@dataclass(frozen=True, slots=True)
class NoisyTenant:
    """Clients that pay from one wallet, and a session that locks its row."""

    installation: Installation
    tenant: Tenant
    clients: Sequence[HttpClient]

    @contextmanager
    def make_noise(self, answers: Counter[str], cap: int | None) -> Iterator[None]:
        """Saturate the service. Without a cap the service's default applies, which is no limit here."""
        self._configure(cap)
        stopped = Event()
        with ThreadPoolExecutor(len(self.clients) + 1) as threads:
            work = [threads.submit(self._lock_wallet, stopped)]
            work += [threads.submit(_pay, client, stopped, answers) for client in self.clients]
            try:
                yield
            finally:
                stopped.set()
            for each in work:
                each.result()

    def _configure(self, cap: int | None) -> None:
        with admin_engine(self.installation.settings.admin_database_url).begin() as connection:
            change_settings(connection, self.tenant.id, {"max_concurrent_requests": cap})

    def _lock_wallet(self, stopped: Event) -> None:
        url = self.installation.server.superuser_url(DATABASE_NAME)
        with psycopg.connect(url, options=f"-c search_path={self.tenant.schema_name}") as connection:
            while not stopped.is_set():
                connection.execute("SELECT FROM wallets WHERE user_id = %s FOR UPDATE", (member_id(0),))
                stopped.wait(LOCKED_SECONDS)
                connection.rollback()
                stopped.wait(RELEASED_SECONDS)


def _pay(client: HttpClient, stopped: Event, answers: Counter[str]) -> None:
    with client.session():
        while not stopped.is_set():
            try:
                client.pay()
                answers["paid"] += 1
            except PaymentRefused as refusal:
                if TOO_MANY_REQUESTS not in str(refusal)[:20]:
                    stopped.set()
                    raise BenchmarkFailed(
                        f"A request of the noisy tenant was refused, but not with 429: {refusal}"
                    ) from None
                answers["refused"] += 1
                stopped.wait(RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class QuietTenant:
    """A way (see measurement.Way): the quiet tenant's clients pay, while `noise` goes on."""

    name: str
    title: str
    clients: ClientPool
    noise: Callable[[Counter[str]], Any]
    answers: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float) -> Slice:
        with self.noise(self.answers):
            return self.clients.run(seconds)


@contextmanager
def _ways(plan: Plan, installation: Installation) -> Iterator[Sequence[QuietTenant]]:
    with ExitStack() as stack:
        service = stack.enter_context(running_service(plan.workers, plan.threads))
        tokens = installation.member_tokens(plan.wallets)
        currencies = installation.currencies
        noisy_tenant = next(tenant for tenant in installation.tenants if tenant.slug == NOISY)
        noisy_currency = {NOISY: currencies.pop(NOISY)}
        noisy_clients = [HttpClient(service.port, tokens[:1], noisy_currency) for _ in range(plan.noise)]
        arguments = [(service.port, tokens, currencies)] * plan.clients
        clients = stack.enter_context(client_pool("payers", "payers", http_clients, arguments))
        noisy = NoisyTenant(installation, noisy_tenant, noisy_clients)
        service.wait_until_ready()
        yield (
            QuietTenant(QUIET, "alone", clients, _no_noise),
            QuietTenant(
                CAPPED,
                f"beside noise, capped at {plan.cap} requests at once",
                clients,
                lambda answers: noisy.make_noise(answers, plan.cap),
            ),
            QuietTenant(UNCAPPED, "beside noise, no cap", clients, lambda answers: noisy.make_noise(answers, None)),
        )


@contextmanager
def _no_noise(_: Counter[str]) -> Iterator[None]:
    yield


COLUMNS = ("the quiet tenant", "per second", "p50 ms", "p99 ms", "p99 to alone", "noisy: paid", "noisy: refused")


def rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            each.title,
            f"{each.median_rate:,.0f}",
            f"{each.p50_ms:.2f}",
            f"{each.p99_ms:.2f}",
            f"{report.ratio(each.name):.2f} ×",
            f"{report.answers[each.name].get('paid', 0):,}",
            f"{report.answers[each.name].get('refused', 0):,}",
        )
        for each in report.figures
    ]


def as_json(report: Report) -> dict[str, Any]:
    ways = {
        each.name: {
            "title": each.title,
            "median_per_second": round(each.median_rate, 1),
            "p50_ms": round(each.p50_ms, 3),
            "p99_ms": round(each.p99_ms, 3),
            "p99_to_quiet": round(report.ratio(each.name), 3),
            "noisy_tenant": report.answers[each.name],
        }
        for each in report.figures
    }
    return {"machine": report.machine, "ways": ways}
