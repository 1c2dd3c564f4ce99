"""Holds over HTTP: authorised, captured in parts, voided, expired; never above the wallet's funds."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People, Person


class Holder:
    """A member with a wallet, and their holds in one tenant."""

    def __init__(self, app: Flask, slug: str, balance_minor: int) -> None:
        people = People(app)
        self.slug, self.api = slug, Api(app)
        self.person: Person = people.make(**{slug: "member"})
        self.admin: Person = people.make(**{slug: "admin"})
        self.wallet_id: UUID = people.wallet(self.person, slug, balance_minor=balance_minor)

    def authorise(self, amount: str, status: int = 201, key: str | None = None, **more: Any) -> dict[str, Any]:
        return self._post("/api/wallet/holds", {"amount": amount, **more}, status, key)

    def capture(
        self, hold: dict[str, Any], amount: str | None = None, status: int = 201, key: str | None = None
    ) -> dict[str, Any]:
        body = {"amount": amount} if amount else {}
        return self._post(f"/api/wallet/holds/{hold['id']}/capture", body, status, key)

    def void(self, hold: dict[str, Any], status: int = 200) -> dict[str, Any]:
        return self._post(f"/api/wallet/holds/{hold['id']}/void", None, status)

    def pay(self, amount: str, status: int = 201, **more: Any) -> dict[str, Any]:
        return self._post("/api/wallet/payments", {"amount": amount, **more}, status)

    def wallet(self) -> tuple[str, str, str]:
        shown: Any = self.api.get("/api/wallet", self.person, self.slug).json
        return shown["balance"], shown["held"], shown["available"]

    def _post(self, path: str, body: Any, status: int, key: str | None = None) -> dict[str, Any]:
        answer = self.api.post(path, self.person, self.slug, json=body, key=key)
        assert answer.status_code == status, answer.text
        shown: dict[str, Any] = answer.json  # type: ignore[assignment]
        return shown


@pytest.fixture
def holder(app: Flask) -> Holder:
    return Holder(app, "eur", 10_000)


@pytest.mark.parametrize("slug", ["eur", "km"])
def test_a_hold_is_seen_in_held_and_available_and_never_in_the_balance(app: Flask, slug: str) -> None:
    holder = Holder(app, slug, 10_000)
    hold = holder.authorise("30.00", orderId="o", description="d")
    assert (hold["status"], hold["capturable"], hold["tenantId"]) == ("active", "30.00", slug)
    assert holder.wallet() == ("100.00", "30.00", "70.00")


def test_what_is_held_can_be_neither_paid_nor_held_again(holder: Holder) -> None:
    holder.authorise("30.00")
    assert holder.pay("70.01", 409)["shortfall"] == "0.01"
    assert holder.authorise("70.01", 409)["code"] == "insufficient_funds"
    holder.pay("70.00")
    assert holder.wallet() == ("30.00", "30.00", "0.00")


def test_captures_in_parts_are_payments_that_name_the_hold_until_nothing_is_left(holder: Holder) -> None:
    hold = holder.authorise("30.00", orderId="in parts")
    first = holder.capture(hold, "10.00")
    assert (first["type"], first["amount"], first["holdId"]) == ("payment", "-10.00", hold["id"])
    assert first["orderId"] == "in parts"
    assert holder.wallet() == ("90.00", "20.00", "70.00")
    refused = holder.capture(hold, "20.01", 409)
    assert (refused["code"], refused["capturable"]) == ("capture_exceeds_hold", "20.00")
    assert holder.capture(hold)["amount"] == "-20.00"
    assert holder.capture(hold, status=409)["code"] == "already_captured"
    assert holder.void(hold, 409)["code"] == "already_captured"
    assert holder.wallet() == ("70.00", "0.00", "70.00")


def test_a_repeated_authorisation_and_a_repeated_capture_happen_once(holder: Holder) -> None:
    hold = holder.authorise("30.00", key="a")
    assert holder.authorise("30.00", key="a")["id"] == hold["id"]
    assert holder.authorise("30.01", 422, key="a")["code"] == "idempotency_key_reused"
    first = holder.capture(hold, "10.00", key="c")
    assert holder.capture(hold, "10.00", key="c") == first
    assert holder.capture(hold, "10.01", 422, key="c")["code"] == "idempotency_key_reused"
    assert holder.wallet() == ("90.00", "20.00", "70.00")


def test_voiding_lets_go_and_voiding_twice_is_voiding_once(holder: Holder) -> None:
    hold = holder.authorise("30.00")
    holder.capture(hold, "10.00")
    for _ in range(2):
        assert holder.void(hold)["status"] == "voided"
        assert holder.wallet() == ("90.00", "0.00", "90.00")
    assert holder.capture(hold, status=409)["code"] == "hold_voided"


def make_over(database: Database, hold: dict[str, Any], slug: str = "eur") -> None:
    """Move a hold's expiry into the past, as only a superuser can."""
    database.as_superuser().execute(
        f"UPDATE {slug}_schema.holds SET expires_at = now() - interval '1 second' WHERE id = %s".encode(),
        (hold["id"],),
    )


def test_a_hold_that_is_over_blocks_nothing_though_nobody_has_expired_it(holder: Holder, database: Database) -> None:
    hold = holder.authorise("100.00")
    make_over(database, hold)
    assert holder.wallet() == ("100.00", "0.00", "100.00")
    assert holder.capture(hold, status=409)["code"] == "hold_expired"
    holder.pay("100.00")
    assert holder.wallet() == ("0.00", "0.00", "0.00")


def test_expired_holds_are_noted_by_the_command(app: Flask, holder: Holder, database: Database) -> None:
    hold = holder.authorise("5.00")
    make_over(database, hold)
    said = app.test_cli_runner().invoke(args=["wallets", "expire-holds"])
    assert said.exit_code == 0, said.output
    noted = database.as_superuser().execute(
        "SELECT h.status, w.held_minor FROM eur_schema.holds h JOIN eur_schema.wallets w ON w.id = h.wallet_id"
        " WHERE h.id = %s",
        (hold["id"],),
    )
    assert noted.fetchone() == ("expired", 0)


def test_an_expiry_must_be_in_the_future_and_is_kept(holder: Holder) -> None:
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    assert holder.authorise("1.00", 422, expiresAt=past)["code"] == "expiry_in_the_past"
    for moment in ("2040-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.000000Z"):
        assert holder.authorise("1.00", expiresAt=moment)["expiresAt"] == moment


def test_a_frozen_wallet_holds_and_captures_nothing(app: Flask, holder: Holder) -> None:
    hold = holder.authorise("5.00")
    path = f"/api/admin/wallets/{holder.wallet_id}"
    holder.api.patch(path, holder.admin, "eur", json={"status": "frozen"}, if_match='"1"')
    assert holder.authorise("5.00", 409)["code"] == "wallet_frozen"
    assert holder.capture(hold, status=409)["code"] == "wallet_frozen"
    assert holder.void(hold)["status"] == "voided"


def test_a_wallet_with_a_hold_is_not_closed_until_the_hold_is_over(app: Flask, database: Database) -> None:
    holder = Holder(app, "eur", 0)
    path = f"/api/admin/wallets/{holder.wallet_id}"
    holder.api.patch(path, holder.admin, "eur", json={"creditLimit": "10.00"}, if_match='"1"')
    hold = holder.authorise("10.00")
    refused = holder.api.patch(path, holder.admin, "eur", json={"creditLimit": "9.99"}, if_match='"2"')
    assert refused.json["code"] == "credit_limit_below_used"
    refused = holder.api.patch(path, holder.admin, "eur", json={"status": "closed"}, if_match='"2"')
    assert refused.json["code"] == "wallet_not_empty"
    make_over(database, hold)
    closed = holder.api.patch(path, holder.admin, "eur", json={"status": "closed"}, if_match='"2"')
    assert closed.status_code == 200


def test_nobody_elses_hold_can_be_captured_or_voided(app: Flask, holder: Holder) -> None:
    other = Holder(app, "eur", 10_000)
    theirs = other.authorise("5.00")
    assert holder.capture(theirs, status=404)["code"] == "hold_not_found"
    assert holder.void(theirs, 404)["code"] == "hold_not_found"
    assert other.wallet() == ("100.00", "5.00", "95.00")


def test_holds_are_listed_newest_first(holder: Holder) -> None:
    made = [holder.authorise("1.00")["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        query = f"?limit=2&cursor={cursor}" if cursor else "?limit=2"
        page: Any = holder.api.get(f"/api/wallet/holds{query}", holder.person, "eur").json
        seen += [item["id"] for item in page["items"]]
        cursor = page["nextCursor"]
    assert seen == made[::-1]


def test_captures_at_the_same_moment_take_no_more_than_the_hold(holder: Holder) -> None:
    hold = holder.authorise("100.00")

    def capture(_: int) -> int:
        path = f"/api/wallet/holds/{hold['id']}/capture"
        return Api(holder.api.client.application).post(path, holder.person, "eur", json={"amount": "9.00"}).status_code

    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(capture, range(16)))
    assert (codes.count(201), codes.count(409)) == (11, 5)
    assert holder.wallet() == ("1.00", "1.00", "0.00")


def test_an_order_is_paid_once_whatever_the_key(holder: Holder) -> None:
    order = uuid4().hex
    holder.pay("1.00", orderId=order)
    assert holder.pay("1.00", 409, orderId=order)["code"] == "order_already_paid"


@pytest.mark.parametrize("amount", ["1.00", "100.01"])
def test_a_dry_run_answers_what_would_happen_and_nothing_does(holder: Holder, amount: str) -> None:
    body = {"amount": amount, "description": "d"}
    dry = holder.api.post("/api/wallet/payments?dryRun=true", holder.person, "eur", json=body, key="k")
    assert holder.wallet() == ("100.00", "0.00", "100.00")
    real = holder.api.post("/api/wallet/payments", holder.person, "eur", json=body, key="k")
    assert dry.status_code == (200 if real.status_code == 201 else real.status_code)
    assert dry.json.get("dryRun") is (True if real.status_code == 201 else None)
    differing = {"id", "createdAt", "dryRun"}
    assert {k: v for k, v in dry.json.items() if k not in differing} == {
        k: v for k, v in real.json.items() if k not in differing
    }


def test_a_refund_says_what_is_left_and_its_repeat_says_the_same(holder: Holder) -> None:
    payment = holder.pay("10.00")
    path = f"/api/admin/wallets/{holder.wallet_id}/refunds"

    def refund(amount: str, key: str) -> Any:
        body = {"paymentId": payment["id"], "amount": amount}
        return holder.api.post(path, holder.admin, "eur", json=body, key=key).json

    assert [refund("4.00", "a")["refundable"], refund("1.00", "b")["refundable"]] == ["6.00", "5.00"]
    assert refund("4.00", "a")["refundable"] == "6.00"


def test_the_balance_at_a_moment_is_that_of_the_last_movement_before_it(holder: Holder) -> None:
    moments = [holder.pay("10.00")["createdAt"] for _ in range(3)]

    def balance(at: str) -> str:
        answer: Any = holder.api.get("/api/wallet/balance", holder.person, "eur", query_string={"at": at}).json
        return str(answer["balance"])

    assert [balance(moment) for moment in moments] == ["90.00", "80.00", "70.00"]
    assert balance("2000-01-01T00:00:00Z") == "0.00"
    now: Any = holder.api.get("/api/wallet/balance", holder.person, "eur").json
    assert now["balance"] == "70.00"


# One key is one request's, whatever the verb.


def test_a_key_of_one_verb_is_refused_by_every_other(holder: Holder) -> None:
    hold = holder.authorise("1.00", key="held")
    holder._post("/api/wallet/payments", {"amount": "1.00"}, 201, "paid")
    for key in ("held", "paid"):
        assert holder.capture(hold, "0.01", 422, key)["code"] == "idempotency_key_reused", key
    assert holder.authorise("1.00", 422, key="paid")["code"] == "idempotency_key_reused"
    assert holder._post("/api/wallet/payments", {"amount": "1.00"}, 422, "held")["code"] == "idempotency_key_reused"
    assert holder.wallet() == ("99.00", "1.00", "98.00")


def test_a_members_keys_and_the_staffs_do_not_meet(holder: Holder) -> None:
    path, bulk_path = f"/api/admin/wallets/{holder.wallet_id}/deposits", "/api/admin/transactions/bulk"
    bulk = {"items": [{"walletId": str(holder.wallet_id), "type": "deposit", "amount": "1.00"}]}
    hold = holder.authorise("1.00", key="held")
    assert holder.api.post(path, holder.admin, "eur", key="held", json={"amount": "1.00"}).status_code == 201
    for key in ("captured", "authorised"):
        assert holder.api.post(bulk_path, holder.admin, "eur", key=key, json=bulk).status_code == 201
    first = holder.capture(hold, "0.50", key="captured")
    assert holder.capture(hold, "0.50", key="captured") == first
    assert holder.capture(hold, None, key="captured") == first, "an amount left out is that of the first request"
    holder.authorise("1.00", key="authorised")
    assert holder.wallet() == ("102.50", "1.50", "101.00")


@pytest.mark.parametrize("length", [255, 256])
def test_the_key_of_a_hold_has_up_to_255_characters(holder: Holder, length: int) -> None:
    holder.authorise("1.00", 201 if length == 255 else 422, key="k" * length)


def test_nothing_is_held_for_an_order_that_is_paid(holder: Holder) -> None:
    order = uuid4().hex
    holder.pay("1.00", orderId=order)
    assert holder.authorise("1.00", 409, orderId=order)["code"] == "order_already_paid"


# The admin's view.


def test_an_admin_sees_a_wallets_holds_and_can_void_them(holder: Holder) -> None:
    hold = holder.authorise("30.00", expiresAt="9999-12-31T00:00:00Z")
    path = f"/api/admin/wallets/{holder.wallet_id}/holds"
    listed = holder.api.get(path, holder.admin, "eur").json["items"]  # type: ignore[index]
    assert [(item["id"], item["status"]) for item in listed] == [(hold["id"], "active")]
    other = Holder(holder.api.client.application, "eur", 100)
    elsewhere = f"/api/admin/wallets/{other.wallet_id}/holds/{hold['id']}/void"
    assert holder.api.post(elsewhere, holder.admin, "eur").status_code == 404
    assert holder.api.post(f"{path}/{hold['id']}/void", holder.person, "eur").status_code == 403
    assert holder.wallet() == ("100.00", "30.00", "70.00")
    assert holder.api.post(f"{path}/{hold['id']}/void", holder.admin, "eur").json["status"] == "voided"  # type: ignore[index]
    assert holder.wallet() == ("100.00", "0.00", "100.00")


# Below HTTP.


def test_no_sql_of_the_service_posts_on_a_hold_but_its_capture(holder: Holder, database: Database) -> None:
    """Neither on another member's hold nor beyond its amount: the audit would fail for ever."""
    hold = holder.authorise("30.00", orderId="hotel")
    other = Holder(holder.api.client.application, "eur", 10_000)
    post = "SELECT wallet_post_v2(%s, 'payment', %s, %s, NULL, %s, NULL, NULL, NULL, NULL, %s)"
    for wallet_id, amount_minor, order_id in (
        (holder.wallet_id, 100, "hotel"),
        (holder.wallet_id, 100, None),
        (other.wallet_id, 100, "hotel"),
        (other.wallet_id, 3_000, None),
    ):
        with pytest.raises(psycopg.Error, match="hold_not_found"):
            database.as_tenant("eur").execute(post, (wallet_id, amount_minor, uuid4().hex, order_id, hold["id"]))
    assert holder.capture(hold)["amount"] == "-30.00"


def test_one_busy_wallet_keeps_no_other_from_being_swept(app: Flask, database: Database) -> None:
    busy, idle = Holder(app, "eur", 10_000), Holder(app, "eur", 10_000)
    first, *_, last = [who.authorise("1.00") for who in (busy, busy, busy, idle)]
    for hold in (first, last):
        make_over(database, hold)
    superuser = database.as_superuser()
    with superuser.transaction():
        superuser.execute("SELECT FROM eur_schema.wallets WHERE id = %s FOR UPDATE", (busy.wallet_id,))
        swept = database.as_tenant("eur").execute("SELECT holds_expire_v1(1)").fetchone()
    assert swept == (1,)
    found = superuser.execute("SELECT status FROM eur_schema.holds WHERE id IN (%s, %s)", (first["id"], last["id"]))
    assert sorted(found.fetchall()) == [("active",), ("expired",)]


def test_looking_for_what_is_over_reads_only_that(fresh_app: Flask, fresh_database: Database) -> None:
    """A payment costs the same with thousands of holds: the index contains the expiry."""
    holder = Holder(fresh_app, "eur", 10_000)
    holder.authorise("1.00")
    superuser = fresh_database.as_superuser()
    superuser.execute("SET search_path TO eur_schema")
    superuser.execute(
        "INSERT INTO holds (wallet_id, currency, amount_minor, expires_at, idempotency_key, request_fingerprint,"
        " created_at) SELECT wallet_id, currency, 1, now() + interval '1 day', n::text, '', now()"
        " FROM holds, generate_series(1, 5000) n"
    )
    superuser.execute("SELECT holds_expire_v1(100), holds_let_go_v1(%s)", (holder.wallet_id,))
    read = "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname = 'holds'"
    with superuser.transaction():
        superuser.execute("SELECT holds_expire_v1(100), holds_let_go_v1(%s)", (holder.wallet_id,))
        (rows,) = superuser.execute(read).fetchall()[0]
    assert rows < 10
