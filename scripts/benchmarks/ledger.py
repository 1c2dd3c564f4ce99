"""Reading a wallet with a long history, and posting many movements at once, each beside the same thing in plain SQL.

All is done by one client in this process. Afterwards the ledger is audited, and must have grown by exactly what was
posted.
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
from scripts.benchmarks.deposits import BULK, ManyPosts
from scripts.benchmarks.installation import Installation, throw_away
from scripts.benchmarks.measurement import Figures, Slice, measure
from scripts.benchmarks.posting import Announce, Books
from scripts.benchmarks.wallet_reads import LongHistory, make_history
from tenant_schemas.flask import EXTENSION, tenant_context

MAKING, AUDITING = "making the server", "auditing the ledger"
MAKING_SECONDS = 5.0
HISTORY_PER_SECOND, AUDITED_PER_SECOND = 12_000, 30_000
WALLETS = BULK + 1  # The first has the history, the others are posted to.
WAYS = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for. A slice has at least one call, however long that takes."""

    transactions: int
    rounds: int
    seconds: float

    @property
    def expected_seconds(self) -> float:
        slices = WAYS * (self.rounds + 1) * self.seconds
        return MAKING_SECONDS + self.making_history_seconds + slices + self.auditing_seconds

    @property
    def making_history_seconds(self) -> float:
        return self.transactions / HISTORY_PER_SECOND

    @property
    def auditing_seconds(self) -> float:
        return 1 + self.transactions / AUDITED_PER_SECOND


@dataclass(slots=True)
class Repeated:
    """A way (see measurement.Way): a call that is made again and again, and how many movements one call is about."""

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
class Line:
    """One way's figures beside those of another. `ratio` is that of movements per second, or of calls where a call is
    not about movements.
    """

    figures: Figures
    per_second: float
    beside: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Report:
    machine: dict[str, Any]
    lines: Sequence[Line]
    books: Sequence[Books]


# Which way is compared with which.
BESIDE = (
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
    """Make everything, measure, check the books, and leave nothing behind. Raises BenchmarkFailed."""
    announce(MAKING, MAKING_SECONDS)
    with throw_away(WALLETS) as installation:
        announce(f"making {plan.transactions:,} transactions", plan.making_history_seconds)
        make_history(installation, plan.transactions)
        before = _counted(installation)
        with _ways(plan, installation) as ways:
            figures, posted = measure(
                ways, rounds=plan.rounds, seconds=plan.seconds, announce=lambda what: announce(what, plan.seconds)
            )
        announce(AUDITING, plan.auditing_seconds)
        return Report(installation.machine(), _lines(ways, figures), _books(installation, before, posted))


@contextmanager
def _ways(plan: Plan, installation: Installation) -> Iterator[list[Repeated]]:
    tenant = installation.tenants[0]
    with ExitStack() as stack:
        app = create_app(installation.settings)
        stack.callback(app.extensions[EXTENSION].close)
        login = stack.enter_context(psycopg.connect(installation.tenant_url(tenant), autocommit=True))
        login.prepare_threshold = 0
        reads, posts = LongHistory(app, tenant, login), ManyPosts(app, tenant, login)
        yield [
            Repeated("statement_json", "statement as JSON", reads.statement_json, reads.count),
            Repeated("statement_csv", "statement as CSV", reads.statement_csv, reads.count),
            Repeated("statement_sql", "the same rows by COPY", reads.statement_sql, reads.count),
            Repeated("balance_at", "balance at a moment", reads.balance_at),
            Repeated("balance_at_sql", "balance at a moment, plain SQL", reads.balance_at_sql),
            Repeated("first_page", "history, page 1", reads.first_page),
            Repeated("thousandth_page", f"history, page {reads.deep_page:,}", reads.deep),
            Repeated("first_page_of_tenant", "all wallets, page 1", reads.first_page_of_tenant),
            Repeated("thousandth_page_of_tenant", f"all wallets, page {reads.deep_page:,}", reads.deep_of_tenant),
            Repeated("single", "single posts", posts.single, 1, tenant.slug),
            Repeated("single_sql", "single posts, plain SQL", posts.single_sql, 1, tenant.slug),
            Repeated("bulk", f"bulk of {BULK:,}", posts.bulk, BULK, tenant.slug),
            Repeated("bulk_sql", f"bulk of {BULK:,}, plain SQL", posts.bulk_sql, BULK, tenant.slug),
        ]


def _lines(ways: Sequence[Repeated], figures: Sequence[Figures]) -> list[Line]:
    movements = {way.name: way.movements for way in ways}
    titles = {way.name: way.title for way in ways}
    found = {each.name: each for each in figures}
    rates = {each.name: each.median_rate * movements[each.name] for each in figures}
    return [
        Line(found[name], rates[name], "" if other == name else titles[other], rates[name] / rates[other])
        for name, other in BESIDE
    ]


def _counted(installation: Installation) -> dict[str, int]:
    counted = {}
    for tenant in installation.tenants:
        with psycopg.connect(installation.tenant_url(tenant)) as login:
            (counted[tenant.slug],) = login.execute("SELECT count(*) FROM wallet_transactions").fetchone() or (0,)
    return counted


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


COLUMNS = ("way", "per second", "p50 ms", "p99 ms", "rate beside another")


def rows(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            line.figures.title,
            f"{line.per_second:,.0f}",
            f"{line.figures.p50_ms:,.2f}",
            f"{line.figures.p99_ms:,.2f}",
            f"{line.ratio:.2f} × {line.beside}" if line.beside else "",
        )
        for line in report.lines
    ]


def as_json(report: Report) -> dict[str, Any]:
    ways = {
        line.figures.name: {
            "title": line.figures.title,
            "median_per_second": round(line.per_second, 1),
            "p50_ms": round(line.figures.p50_ms, 3),
            "p99_ms": round(line.figures.p99_ms, 3),
            "beside": line.beside,
            "ratio": round(line.ratio, 3),
        }
        for line in report.lines
    }
    books = {each.tenant: {**asdict(each), "agree": each.agree} for each in report.books}
    return {"machine": report.machine, "ways": ways, "books": books}
