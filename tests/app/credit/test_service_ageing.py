"""The age of used credit, compared with a tiny model: repayments settle the oldest credit first.

The posting function takes the time itself, so a superuser dates histories back, in a database of the test's own.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

from tenant_schemas.testing.plugin import Database
from tests.app.credit.conftest import Office

LIMIT = 1_000_000
Movement = tuple[float, int]  # how many days ago, and the amount signed by its effect
BUCKETS = ("up_to_30_days_minor", "up_to_60_days_minor", "up_to_90_days_minor", "over_90_days_minor")


@dataclass(frozen=True)
class Age:
    """The unpaid amounts by age, and the age of the oldest in days."""

    buckets: tuple[int, int, int, int]
    oldest: float


def age_of(history: Sequence[Movement]) -> Age | None:
    """The rule in plain Python. None without used credit."""
    deposit, draws = 0, deque[tuple[float, int]]()
    for days, amount in history:
        if amount < 0:
            from_deposit = min(deposit, -amount)
            deposit -= from_deposit
            if -amount > from_deposit:
                draws.append((days, -amount - from_deposit))
            continue
        left = amount
        while left and draws:
            oldest, drawn = draws.popleft()
            if drawn > left:
                draws.appendleft((oldest, drawn - left))
            left -= min(drawn, left)
        deposit += left
    if not draws:
        return None
    buckets = [0, 0, 0, 0]
    for days, drawn in draws:
        buckets[min(int(days // 30), 3)] += drawn
    return Age((buckets[0], buckets[1], buckets[2], buckets[3]), draws[0][0])


class Past:
    """Histories with known dates, in tenant eur."""

    def __init__(self, database: Database, office: Office) -> None:
        self.office, self.superuser = office, database.as_superuser()
        self.superuser.execute("SET search_path = eur_schema")
        self.superuser.execute("SET session_replication_role = replica")  # No triggers.

    def wallet(self, history: Sequence[Movement], currency: str = "EUR") -> UUID:
        """A wallet with this history, oldest first."""
        _, wallet_id = self.office.member(currency, credit_limit_minor=LIMIT)
        items = [
            {
                "wallet_id": str(wallet_id),
                "type": "deposit" if amount > 0 else "payment",
                "amount_minor": abs(amount),
                "idempotency_key": uuid4().hex,
            }
            for _, amount in history
        ]
        posted = self.superuser.execute(
            "SELECT count(*) FROM wallet_post_many_v1(%s, NULL, 'test', true)", (Jsonb(items),)
        )
        assert posted.fetchone() == (len(history),)
        self.superuser.execute(
            "UPDATE wallet_transactions t SET created_at = now() - make_interval(secs => d.days * 86400)"
            " FROM unnest(%s::double precision[]) WITH ORDINALITY AS d (days, seq)"
            " WHERE t.wallet_id = %s AND t.seq = d.seq",
            ([days for days, _ in history], wallet_id),
        )
        return wallet_id

    def age(self, wallet_id: UUID) -> Age | None:
        """The view's result."""
        query = f"SELECT extract(epoch FROM now() - since) / 86400, {', '.join(BUCKETS)} FROM credit_in_use"
        row = self.superuser.execute(f"{query} WHERE wallet_id = %s".encode(), (wallet_id,)).fetchone()
        return Age(row[1:], round(float(row[0]), 2)) if row else None


@pytest.fixture
def past(fresh_database: Database, office: Office) -> Past:
    return Past(fresh_database, office)


def random_history(random: Random) -> list[Movement]:
    """Days that are no edge of a bucket; up to forty movements above and below zero."""
    balance, history = 0, []
    count = random.randrange(1, 40)
    for days in sorted((random.randrange(130) + 0.5 for _ in range(count)), reverse=True):
        amount = random.choice([-1, 1]) * random.randrange(1, random.choice([10, 1_000, 100_000]))
        if balance + amount + LIMIT < 0:
            amount = -amount
        elif random.random() < 0.1 and balance < 0:
            amount = -balance  # Repaid to the last cent.
        balance += amount
        history.append((days, amount))
    return history


def test_the_view_agrees_with_the_model_over_random_histories(past: Past) -> None:
    random = Random(20_260)
    histories = [random_history(random) for _ in range(120)]
    wallets = [past.wallet(history) for history in histories]
    expected = [age_of(history) for history in histories]
    assert [past.age(wallet_id) for wallet_id in wallets] == expected
    seen = [age for age in expected if age]
    assert len(seen) > 30
    assert all(any(age.buckets[place] for age in seen) for place in range(4))


@pytest.mark.parametrize(
    ("history", "buckets", "oldest"),
    [
        ([(100, 50), (95, -80), (10, -5)], (5, 0, 0, 30), 95),
        ([(95, -80), (70, -20), (10, 90)], (0, 0, 10, 0), 70),
        ([(95, -80), (70, 80), (40, -7)], (0, 7, 0, 0), 40),
        ([(95, -80), (70, 100), (40, -27)], (0, 7, 0, 0), 40),
        ([(95, -80), (70, -1), (40, -1), (10, -1)], (1, 1, 1, 80), 95),
        ([(95, -80), (40, 79)], (0, 0, 0, 1), 95),
        ([(95, -10), (40, -10), (5, 10), (5, -1)], (1, 10, 0, 0), 40),
    ],
)
def test_a_repayment_repays_the_oldest_draw_first(
    past: Past, history: list[Movement], buckets: tuple[int, int, int, int], oldest: float
) -> None:
    assert past.age(past.wallet(history)) == Age(buckets, oldest)


def test_a_wallet_that_repaid_all_or_never_drew_is_not_in_the_report(past: Past) -> None:
    for history in ([(95, -80), (40, 80)], [(95, 80), (40, -80)], [(95, 80)]):
        assert past.age(past.wallet(history)) is None
    assert past.office.get("credit-report/wallets")["items"] == []


@pytest.mark.parametrize(("days", "place"), [(30, 1), (60, 2), (90, 3)])
def test_the_very_moment_of_an_edge_belongs_to_the_older_part(past: Past, days: int, place: int) -> None:
    wallet_id = past.wallet([(0, -7)])
    for earlier, expected in ((timedelta(0), place), (timedelta(microseconds=-1), place - 1)):
        with past.superuser.transaction():  # in which now() stands still
            past.superuser.execute(
                "UPDATE wallet_transactions SET created_at = now() - make_interval(days => %s) - %s", (days, earlier)
            )
            age = past.age(wallet_id)
        assert age is not None
        assert age.buckets == tuple(7 if number == expected else 0 for number in range(4))


def test_the_report_totals_each_currency_alone_and_lists_whose_it_is(past: Past) -> None:
    office = past.office
    euros = [past.wallet([(100, -500), (5, -70)]), past.wallet([(40, -1_000)])]
    yen = past.wallet([(10, -9)], "JPY")
    past.wallet([(10, 5)])
    report = {item["currency"]: item for item in office.get("credit-report")["items"]}
    assert list(report) == ["EUR", "USD", "JPY", "KWD"]
    since = {name: report[name].pop("since") for name in report}
    none = dict.fromkeys(("upTo30Days", "upTo60Days", "upTo90Days", "over90Days"), "0.00")
    assert report["EUR"] == none | {
        "currency": "EUR", "wallets": 2, "creditLimit": "20000.00", "creditUsed": "15.70",
        "upTo30Days": "0.70", "upTo60Days": "10.00", "over90Days": "5.00",
    }  # fmt: skip
    assert report["USD"] == none | {"currency": "USD", "wallets": 0, "creditLimit": "0.00", "creditUsed": "0.00"}
    assert (report["JPY"]["creditUsed"], report["JPY"]["upTo30Days"], report["JPY"]["wallets"]) == ("9", "9", 1)
    assert since["USD"] is None
    oldest = datetime.now(UTC) - datetime.fromisoformat(since["EUR"])
    assert oldest // timedelta(days=1) == 100

    listed = {item["walletId"]: item for item in office.pages("credit-report/wallets", limit=1)}
    assert set(listed) == {str(wallet_id) for wallet_id in (*euros, yen)}
    owner = office.wallet(euros[0])["userId"]
    told: dict[str, Any] = {"userId": owner, "currency": "EUR", "creditUsed": "5.70"}
    assert told.items() <= listed[str(euros[0])].items()
    shown = listed[str(euros[0])]["owner"]
    assert (shown["id"], shown["name"], shown["email"][-12:]) == (owner, "Test Person", "@example.com")


def test_credit_in_a_currency_that_is_no_longer_the_tenants_is_still_reported(past: Past) -> None:
    past.wallet([(10, -9)], "USD")
    past.superuser.execute(
        """UPDATE shared.tenants SET settings = settings || '{"currencies": ["JPY"]}' WHERE slug = 'eur'"""
    )
    report = past.office.get("credit-report")["items"]
    assert [(item["currency"], item["creditUsed"]) for item in report] == [
        ("EUR", "0.00"), ("JPY", "0"), ("USD", "0.09"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_analyzed", [False, True])
def test_what_is_read_does_not_grow_with_the_history_before_credit_was_used(past: Past, is_analyzed: bool) -> None:
    recent: list[Movement] = [(3, -4), (2, -5), (1, 3)]
    wallet_id = past.wallet([*((100, sign) for sign in (100, -90) * 1_000), (50, -10_000), *recent])
    for _ in range(20):
        past.wallet([(20, 10), *recent])
    if is_analyzed:
        past.superuser.execute("ANALYZE wallet_transactions, wallets")
    query = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM credit_in_use WHERE wallet_id = %s"
    ((plan,),) = past.superuser.execute(query, (wallet_id,)).fetchall()
    # Backwards to the last balance that was not negative, and from there on once more.
    assert rows_read(plan[0]["Plan"], "wallet_transactions") <= 2 * (len(recent) + 2)


def rows_read(plan: dict[str, Any], table: str) -> int:
    """The rows of a table that a plan read, including those that a filter dropped."""
    here = 0
    if plan.get("Relation Name") == table:
        here = round((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
    return here + sum(rows_read(inner, table) for inner in plan.get("Plans", ()))
