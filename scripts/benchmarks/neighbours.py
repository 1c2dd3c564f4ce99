"""How long one tenant's payments take beside another tenant that saturates the service with slow work.

The noisy tenant's clients all pay from one wallet whose row somebody else keeps locked, half a second at a time, so
that whatever the service gives them hangs. The other tenant's clients pay as ever: alone, beside the noise with the cap
on its requests at once, and beside it without. All in turns, in one run.
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
from scripts.benchmarks.client_pool import Crew, crew
from scripts.benchmarks.clients import HttpClient, PaymentRefused, http_clients, member_id
from scripts.benchmarks.installation import Installation, served, throw_away
from scripts.benchmarks.measurement import BenchmarkFailed, Figures, Slice, measure
from scripts.benchmarks.posting import EXPECTED_SECONDS, MAKING, STARTING, Announce
from tenant_schemas.registry import change_settings
from tenant_schemas.tenant import Tenant

NOISY = "eur"
QUIET, CAPPED, UNCAPPED = "quiet", "beside", "uncapped"
LOCKED_SECONDS = 0.5
RELEASED_SECONDS = 0.02
# How soon a refused client of the noisy tenant is back. It was told to wait a second.
IMPATIENCE_SECONDS = 0.1
TOO_MANY = " 429 "


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for. `noise` is how many clients the noisy tenant has, `cap` what it may have at once in a
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
    """`answers` says for each way what the noisy tenant's clients got: payments, and refusals."""

    machine: dict[str, Any]
    figures: Sequence[Figures]
    answers: Mapping[str, Mapping[str, int]]

    def ratio(self, name: str) -> float:
        """The p99 of a way beside the quiet one's."""
        p99_ms = {each.name: each.p99_ms for each in self.figures}
        return p99_ms[name] / p99_ms[QUIET]


def run(plan: Plan, announce: Announce) -> Report:
    """Make everything, measure, and leave nothing behind. Raises BenchmarkFailed."""
    announce(MAKING, EXPECTED_SECONDS[MAKING])
    with throw_away(plan.wallets) as installation:
        announce(STARTING, EXPECTED_SECONDS[STARTING])
        with _ways(plan, installation) as ways:
            figures, _ = measure(
                ways, rounds=plan.rounds, seconds=plan.seconds, announce=lambda what: announce(what, plan.seconds)
            )
        return Report(installation.machine(), figures, {way.name: dict(way.answers) for way in ways})


@dataclass(frozen=True, slots=True)
class Noise:
    """The noisy tenant: clients of one wallet, and somebody who locks its row."""

    installation: Installation
    tenant: Tenant
    clients: Sequence[HttpClient]

    @contextmanager
    def beside(self, answers: Counter[str], cap: int | None) -> Iterator[None]:
        """Saturate the service; without a cap the service's default counts, which here is none."""
        self._configure(cap)
        over = Event()
        with ThreadPoolExecutor(len(self.clients) + 1) as threads:
            work = [threads.submit(self._lock, over)]
            work += [threads.submit(_pay, client, over, answers) for client in self.clients]
            try:
                yield
            finally:
                over.set()
            for each in work:
                each.result()

    def _configure(self, cap: int | None) -> None:
        with admin_engine(self.installation.settings.admin_database_url).begin() as connection:
            change_settings(connection, self.tenant.id, {"max_concurrent_requests": cap})

    def _lock(self, over: Event) -> None:
        url = self.installation.server.superuser_url(DATABASE_NAME)
        with psycopg.connect(url, options=f"-c search_path={self.tenant.schema_name}") as connection:
            while not over.is_set():
                connection.execute("SELECT FROM wallets WHERE user_id = %s FOR UPDATE", (member_id(0),))
                over.wait(LOCKED_SECONDS)
                connection.rollback()
                over.wait(RELEASED_SECONDS)


def _pay(client: HttpClient, over: Event, answers: Counter[str]) -> None:
    with client.session():
        while not over.is_set():
            try:
                client.pay()
                answers["paid"] += 1
            except PaymentRefused as refusal:
                if TOO_MANY not in str(refusal)[:20]:
                    over.set()
                    raise BenchmarkFailed(f"The noisy tenant was refused for another reason: {refusal}") from None
                answers["refused"] += 1
                over.wait(IMPATIENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class Beside:
    """A way (see measurement.Way): the quiet tenant's clients, with something going on beside them."""

    name: str
    title: str
    crew: Crew
    noise: Callable[[Counter[str]], Any]
    answers: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float) -> Slice:
        with self.noise(self.answers):
            return self.crew.run(seconds)


@contextmanager
def _ways(plan: Plan, installation: Installation) -> Iterator[Sequence[Beside]]:
    with ExitStack() as stack:
        api = stack.enter_context(served(plan.workers, plan.threads))
        tokens = installation.member_tokens(plan.wallets)
        currencies = installation.currencies
        noisy = next(tenant for tenant in installation.tenants if tenant.slug == NOISY)
        noisy_currency = {NOISY: currencies.pop(NOISY)}
        clients = [HttpClient(api.port, tokens[:1], noisy_currency) for _ in range(plan.noise)]
        payers = stack.enter_context(
            crew("payers", "payers", http_clients, [(api.port, tokens, currencies)] * plan.clients)
        )
        noise = Noise(installation, noisy, clients)
        api.wait_until_ready()
        yield (
            Beside(QUIET, "alone", payers, _silence),
            Beside(
                CAPPED,
                f"beside it, {plan.cap} of its requests at once",
                payers,
                lambda told: noise.beside(told, plan.cap),
            ),
            Beside(UNCAPPED, "beside it, with no cap", payers, lambda told: noise.beside(told, None)),
        )


@contextmanager
def _silence(_: Counter[str]) -> Iterator[None]:
    yield


COLUMNS = ("the quiet tenant", "per second", "p50 ms", "p99 ms", "p99 to quiet", "noisy: paid", "refused")


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
