"""Reads of a wallet with many transactions, and deposits into many wallets, compared with the same in plain SQL.

One client in this process does all of it. Afterwards the ledger is audited, and must have grown by exactly the posted
movements.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

import psycopg

from app import create_app
from app.ledger.audit import audit_ledger
from scripts.benchmarks.deposits import BULK, Deposits
from scripts.benchmarks.installation import Installation, throwaway_installation
from scripts.benchmarks.measurement import Figures, Slice, measure
from scripts.benchmarks.posting import Announce, Books
from scripts.benchmarks.wallet_reads import WalletReads, fill_wallet
from tenant_schemas.flask import EXTENSION, tenant_context

MAKING, AUDITING = "making the server", "auditing the ledger"
MAKING_SECONDS = 5.0
FILLED_PER_SECOND, AUDITED_PER_SECOND = 12_000, 30_000
WALLETS = BULK + 1  # The first one is filled and read, the others get deposits.
WAYS = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options. A slice has at least one call, even if that takes longer than `seconds`."""

    transactions: int
    rounds: int
    seconds: float

    @property
    def expected_seconds(self) -> float:
        slices = WAYS * (self.rounds + 1) * self.seconds
        return MAKING_SECONDS + self.filling_seconds + slices + self.auditing_seconds

    @property
    def filling_seconds(self) -> float:
        return self.transactions / FILLED_PER_SECOND

    @property
    def auditing_seconds(self) -> float:
        return 1 + self.transactions / AUDITED_PER_SECOND


@dataclass(slots=True)
class RepeatedCall:
    """A way (see measurement.Way): calls a function repeatedly. `movements` is the number of movements in one call."""

    name: str
    title: str
    call: Callable[[], Any]
    movements: int = 1
    posts_to: str = ""

    def run(self, seconds: float) -> Slice:
        latencies_ms: list[float] = []
        started = now = monotonic()
        while not latencies_ms or now - started < seconds:
            self.call()
            latencies_ms.append((monotonic() - now) * 1000)
            now = monotonic()
        posted = {self.posts_to: len(latencies_ms) * self.movements} if self.posts_to else {}
        return Slice(now - started, latencies_ms, posted)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of one way, compared with another. `ratio` is that of their movements per second (of their calls per
    second, if a call has no movements).
    """

    figures: Figures
    per_second: float
    compared_with: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: dict[str, Any]
    comparisons: Sequence[Comparison]
    books: Sequence[Books]


# Each way, and the way it is compared with.
COMPARED = (
    ("statement_json", "statement_sql"),
    ("statement_csv", "statement_sql"),
    ("statement_sql", "statement_sql"),
    ("balance_at", "balance_at_sql"),
    ("balance_at_sql", "balance_at_sql"),
    ("first_page", "first_page"),
    ("thousandth_page", "first_page"),
    ("first_page_of_tenant", "first_page_of_tenant"),
    ("thousandth_page_of_tenant", "first_page_of_tenant"),
    ("single", "single_sql"),
    ("single_sql", "single_sql"),
    ("bulk", "single"),
    ("bulk_sql", "single_sql"),
)


def run(plan: Plan, announce: Announce) -> Report:
    """Set up an installation, measure, audit the ledger, and remove everything. Raises BenchmarkFailed."""
    announce(MAKING, MAKING_SECONDS)
    with throwaway_installation(WALLETS) as installation:
        announce(f"posting {plan.transactions:,} transactions", plan.filling_seconds)
        fill_wallet(installation, plan.transactions)
        before = _count_transactions(installation)
        with _ways(plan, installation) as ways:
            figures, posted = measure(
                ways, rounds=plan.rounds, seconds=plan.seconds, announce=lambda step: announce(step, plan.seconds)
            )
        announce(AUDITING, plan.auditing_seconds)
        return Report(installation.machine(), _comparisons(ways, figures), _books(installation, before, posted))


@contextmanager
def _ways(plan: Plan, installation: Installation) -> Iterator[list[RepeatedCall]]:
    tenant = installation.tenants[0]
    with ExitStack() as stack:
        app = create_app(installation.settings)
        stack.callback(app.extensions[EXTENSION].close)
        login = stack.enter_context(psycopg.connect(installation.tenant_url(tenant), autocommit=True))
        login.prepare_threshold = 0
        reads, deposits = WalletReads(app, tenant, login), Deposits(app, tenant, login)
        yield [
            RepeatedCall("statement_json", "statement as JSON", reads.statement_json, reads.count),
            RepeatedCall("statement_csv", "statement as CSV", reads.statement_csv, reads.count),
            RepeatedCall("statement_sql", "the same rows by COPY", reads.statement_sql, reads.count),
            RepeatedCall("balance_at", "balance at a moment", reads.balance_at),
            RepeatedCall("balance_at_sql", "balance at a moment, plain SQL", reads.balance_at_sql),
            RepeatedCall("first_page", "transactions, page 1", reads.first_page_of_wallet),
            RepeatedCall("thousandth_page", f"transactions, page {reads.deep_page:,}", reads.deep_page_of_wallet),
            RepeatedCall("first_page_of_tenant", "all wallets, page 1", reads.first_page_of_tenant),
            RepeatedCall(
                "thousandth_page_of_tenant", f"all wallets, page {reads.deep_page:,}", reads.deep_page_of_tenant
            ),
            RepeatedCall("single", "single deposits", deposits.single, 1, tenant.slug),
            RepeatedCall("single_sql", "single deposits, plain SQL", deposits.single_sql, 1, tenant.slug),
            RepeatedCall("bulk", f"bulks of {BULK:,} deposits", deposits.bulk, BULK, tenant.slug),
            RepeatedCall("bulk_sql", f"bulks of {BULK:,} deposits, plain SQL", deposits.bulk_sql, BULK, tenant.slug),
        ]


def _comparisons(ways: Sequence[RepeatedCall], figures: Sequence[Figures]) -> list[Comparison]:
    movements = {way.name: way.movements for way in ways}
    titles = {way.name: way.title for way in ways}
    found = {each.name: each for each in figures}
    rates = {each.name: each.median_rate * movements[each.name] for each in figures}
    return [
        Comparison(found[name], rates[name], "" if other == name else titles[other], rates[name] / rates[other])
        for name, other in COMPARED
    ]


def _count_transactions(installation: Installation) -> dict[str, int]:
    counts = {}
    for tenant in installation.tenants:
        with psycopg.connect(installation.tenant_url(tenant)) as login:
            (counts[tenant.slug],) = login.execute("SELECT count(*) FROM wallet_transactions").fetchone() or (0,)
    return counts


def _books(installation: Installation, before: dict[str, int], posted: Counter[str]) -> list[Books]:
    app = create_app(installation.settings)
    try:
        with app.app_context():
            return [_books_of(slug, before[slug], posted[slug]) for slug in before]
    finally:
        app.extensions[EXTENSION].close()


def _books_of(slug: str, before: int, posted: int) -> Books:
    with tenant_context(slug):
        report = audit_ledger()
        return Books(slug, posted, report.transactions - before, report.findings)


COLUMNS = ("way", "per second", "p50 ms", "p99 ms", "rate compared")


def rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            each.figures.title,
            f"{each.per_second:,.0f}",
            f"{each.figures.p50_ms:,.2f}",
            f"{each.figures.p99_ms:,.2f}",
            f"{each.ratio:.2f} × {each.compared_with}" if each.compared_with else "",
        )
        for each in report.comparisons
    ]


def as_json(report: Report) -> dict[str, Any]:
    ways = {
        each.figures.name: {
            "title": each.figures.title,
            "median_per_second": round(each.per_second, 1),
            "p50_ms": round(each.figures.p50_ms, 3),
            "p99_ms": round(each.figures.p99_ms, 3),
            "beside": each.compared_with,
            "ratio": round(each.ratio, 3),
        }
        for each in report.comparisons
    }
    books = {each.tenant: {**asdict(each), "agree": each.agree} for each in report.books}
    return {"machine": report.machine, "ways": ways, "books": books}
