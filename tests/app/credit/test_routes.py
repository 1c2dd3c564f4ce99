"""Credit: policies by currency, the limits that follow from them, and the history of both."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from flask import Flask

from tests.app.api.test_problems import faults_of, problem_of
from tests.app.credit.conftest import Office, body_of
from tests.factories.api import ID_OF_NOTHING, Api


def audit_of(app: Flask) -> tuple[int, str]:
    said = app.test_cli_runner().invoke(args=["wallets", "audit"])
    return said.exit_code, said.output


# --- the policy ----------------------------------------------------------------------------------------------------


def test_each_of_the_tenants_currencies_has_a_policy_that_grants_nothing_until_it_is_set(office: Office) -> None:
    nothing = {"EUR": "0.00", "USD": "0.00", "JPY": "0", "KWD": "0.000"}
    assert office.get("credit-policies") == {
        "items": [
            {"currency": currency, "defaultLimit": amount, "maxLimit": None} for currency, amount in nothing.items()
        ],
        "nextCursor": None,
    }
    assert office.get("credit-policy-changes") == {"items": [], "nextCursor": None}


def test_a_policy_is_set_in_its_currency_and_tenant_alone(office: Office, fresh_app: Flask) -> None:
    other = Office(fresh_app, "km")
    before = {item["currency"]: item for item in office.get("credit-policies")["items"]}
    kwd = office.set_policy("KWD", "1.125", "2.5")
    assert kwd == {"currency": "KWD", "defaultLimit": "1.125", "maxLimit": "2.500"}
    after = {item["currency"]: item for item in office.get("credit-policies")["items"]}
    assert after == before | {"KWD": kwd}
    assert other.get("credit-policies")["items"] == [{"currency": "BAM", "defaultLimit": "0.00", "maxLimit": None}]
    assert other.get("credit-policy-changes")["items"] == []


def test_putting_a_policy_twice_is_putting_it_once_and_its_history_shows_real_changes(office: Office) -> None:
    steps: list[tuple[str, str | None]] = [("5.00", "10.00"), ("5.00", "10.00"), ("0.00", None)]
    answers = [office.set_policy("EUR", *step) for step in steps]
    assert answers[0] == answers[1] == {"currency": "EUR", "defaultLimit": "5.00", "maxLimit": "10.00"}
    shown = office.pages("credit-policy-changes", limit=1)
    assert [(item["from"], item["to"]) for item in shown] == [(answers[1], answers[2]), (answers[2], answers[0])]
    assert {(item["actorId"], item["currency"]) for item in shown} == {(str(office.admin.user_id), "EUR")}


def test_a_change_of_policy_is_logged_with_its_request(office: Office) -> None:
    headers, body = {"X-Request-Id": "from-the-office"}, {"defaultLimit": "1.00", "maxLimit": None}
    Api(office.app).send("PUT", "/api/admin/credit-policies/EUR", office.admin, "eur", headers=headers, json=body)
    assert office.get("credit-policy-changes")["items"][0]["requestId"] == "from-the-office"


@pytest.mark.parametrize(
    ("currency", "body", "fault"),
    [
        ("EUR", {"defaultLimit": "10.01", "maxLimit": "10.00"}, ("defaultLimit", "default_above_max")),
        ("EUR", {"defaultLimit": "1.001", "maxLimit": None}, ("defaultLimit", "too_many_fraction_digits")),
        ("JPY", {"defaultLimit": "1", "maxLimit": "1.5"}, ("maxLimit", "too_many_fraction_digits")),
        ("EUR", {"defaultLimit": "-1", "maxLimit": None}, ("defaultLimit", "amount_negative")),
        ("EUR", {"defaultLimit": "0", "maxLimit": "-1"}, ("maxLimit", "amount_negative")),
        ("EUR", {"defaultLimit": "0"}, ("maxLimit", "required")),
        ("EUR", {"maxLimit": None}, ("defaultLimit", "required")),
        ("EUR", {"defaultLimit": "0", "maxLimit": None, "currency": "EUR"}, ("currency", "unknown_field")),
        ("BAM", {"defaultLimit": "0", "maxLimit": None}, ("currency", "currency_not_allowed")),
        ("eur", {"defaultLimit": "0", "maxLimit": None}, ("currency", "currency_not_allowed")),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(
    app: Flask, currency: str, body: dict[str, Any], fault: tuple[str, str]
) -> None:
    office = Office(app, "eur")
    before = office.get("credit-policies"), office.get("credit-policy-changes")
    path = f"/api/admin/credit-policies/{currency}"
    assert faults_of(Api(app).send("PUT", path, office.admin, "eur", json=body)) == [fault]
    assert (office.get("credit-policies"), office.get("credit-policy-changes")) == before


def test_policies_set_at_the_same_moment_lead_from_one_to_the_next(office: Office) -> None:
    start = Barrier(8)

    def put(number: int) -> int:
        start.wait()
        return office.put_policy("USD", f"{number}.00", None).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(put, range(1, 9))) == {200}
    shown = office.pages("credit-policy-changes", limit=3)
    assert len(shown) == 8
    assert [newer["from"] for newer in shown[:-1]] == [older["to"] for older in shown[1:]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "credit-policies"),
        ("PUT", "credit-policies/EUR"),
        ("GET", "credit-policy-changes"),
        ("GET", f"wallets/{ID_OF_NOTHING}/credit-limits"),
        ("GET", "credit-report"),
        ("GET", "credit-report/wallets"),
    ],
)
def test_credit_is_the_admins_business(app: Flask, method: str, path: str) -> None:
    member, _ = Office(app, "eur").member()
    problem_of(Api(app).send(method, f"/api/admin/{path}", member, "eur"), 403, "admin_required")


# --- the limits of wallets -----------------------------------------------------------------------------------------


def test_a_new_wallet_is_given_the_default_limit_of_its_currency(office: Office) -> None:
    office.set_policy("EUR", "12.50", "20.00")
    office.set_policy("JPY", "300", None)
    euros, yen, dollars = (office.member(currency)[1] for currency in ("EUR", "JPY", "USD"))
    shown = [office.wallet(wallet)["creditLimit"] for wallet in (euros, yen, dollars)]
    assert shown == ["12.50", "300", "0.00"]
    assert audit_of(office.app)[0] == 0
    (change,) = office.get(f"wallets/{euros}/credit-limits")["items"]
    assert (change["action"], change["from"], change["to"], change["currency"]) == (
        "wallet.open", "0.00", "12.50", "EUR",
    )  # fmt: skip


def test_the_policy_of_later_changes_no_wallet_of_before(office: Office) -> None:
    office.set_policy("EUR", "5.00", None)
    _, wallet_id = office.member()
    office.set_policy("EUR", "1.00", "2.00")
    assert office.wallet(wallet_id)["creditLimit"] == "5.00"


def test_a_limit_above_the_policys_is_refused_and_one_as_high_is_given(office: Office) -> None:
    office.set_policy("EUR", "0.00", "10.00")
    _, wallet_id = office.member()
    refused = problem_of(office.limit(wallet_id, "10.01"), 409, "credit_limit_above_policy")
    assert (refused["maxLimit"], refused["required"]) == ("10.00", "10.01")
    assert office.get(f"wallets/{wallet_id}/credit-limits")["items"] == []
    assert body_of(office.limit(wallet_id, "10.00"), 200)["creditLimit"] == "10.00"


def test_a_limit_given_before_the_ceiling_is_kept_and_lowered_and_never_raised(office: Office) -> None:
    _, wallet_id = office.member(credit_limit_minor=5_000)
    office.set_policy("EUR", "0.00", "10.00")
    problem_of(office.limit(wallet_id, "50.01"), 409, "credit_limit_above_policy")
    for limit in ("50.00", "40.00", "10.00"):
        assert body_of(office.limit(wallet_id, limit), 200)["creditLimit"] == limit
    problem_of(office.limit(wallet_id, "10.01"), 409, "credit_limit_above_policy")


def test_a_ceiling_of_zero_is_a_ceiling(office: Office) -> None:
    office.set_policy("EUR", "0.00", "0.00")
    problem_of(office.limit(office.member()[1], "0.01"), 409, "credit_limit_above_policy")


def test_a_limit_goes_down_to_what_is_used_and_held_and_no_lower(office: Office) -> None:
    person, wallet_id = office.member(balance_minor=1_000, credit_limit_minor=5_000)
    office.move(wallet_id, "payments", "30.00")
    Api(office.app).post("/api/wallet/holds", person, "eur", json={"amount": "5.00"})
    refused = problem_of(office.limit(wallet_id, "24.99"), 409, "credit_limit_below_used")
    assert (refused["creditUsed"], refused["held"]) == ("20.00", "5.00")
    assert body_of(office.limit(wallet_id, "25.00"), 200)["available"] == "0.00"


def test_limits_lowered_while_payments_run_never_go_below_what_is_used(office: Office) -> None:
    _, wallet_id = office.member(credit_limit_minor=10_000)
    start = Barrier(8)

    def act(number: int) -> list[tuple[int, str]]:
        start.wait()
        answers = []
        for step in range(20):
            lowered = f"{100 - 5 * step}.00"
            answer = office.limit(wallet_id, lowered) if number < 2 else office.move(wallet_id, "payments", "1.00")
            answers.append((answer.status_code, answer.get_json(force=True).get("code", "")))
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = [answer for found in pool.map(act, range(8)) for answer in found]
    refused = {code for status, code in answers if status >= 400}
    assert "insufficient_funds" in refused  # 120 payments of 1.00 were asked for.
    assert refused <= {"insufficient_funds", "credit_limit_below_used", "version_mismatch"}
    paid = sum(status == 201 for status, _ in answers)
    shown = office.wallet(wallet_id)
    assert shown["creditUsed"] == f"{paid}.00"
    assert not shown["available"].startswith("-")
    assert audit_of(office.app)[0] == 0
    history = office.pages(f"wallets/{wallet_id}/credit-limits", limit=3)
    assert history[0]["to"] == shown["creditLimit"]
    assert [newer["from"] for newer in history[:-1]] == [older["to"] for older in history[1:]]


# --- their history -------------------------------------------------------------------------------------------------


def test_who_changed_a_limit_from_what_to_what_is_told_newest_first(app: Flask) -> None:
    office = Office(app, "eur")
    _, wallet_id = office.member()
    _, another = office.member(credit_limit_minor=7)
    for limit in ("10.00", "10.00", "25.50", "0.00"):
        body_of(office.limit(wallet_id, limit), 200)
    shown = office.pages(f"wallets/{wallet_id}/credit-limits")
    assert [(item["from"], item["to"]) for item in shown] == [
        ("25.50", "0.00"), ("10.00", "25.50"), ("0.00", "10.00"),
    ]  # fmt: skip
    told = {"actorId": str(office.admin.user_id), "action": "wallet.configure", "currency": "EUR"}
    assert all(told.items() <= item.items() for item in shown)
    assert [item["at"] for item in shown] == sorted((item["at"] for item in shown), reverse=True)
    assert len(office.pages(f"wallets/{another}/credit-limits")) == 1


def test_freezing_a_wallet_is_no_change_of_its_limit(app: Flask) -> None:
    office = Office(app, "eur")
    _, wallet_id = office.member()
    path = f"/api/admin/wallets/{wallet_id}"
    seen = Api(app).get(path, office.admin, "eur").headers["ETag"]
    body_of(Api(app).patch(path, office.admin, "eur", if_match=seen, json={"status": "frozen"}), 200)
    assert office.get(f"wallets/{wallet_id}/credit-limits") == {"items": [], "nextCursor": None}


def test_what_an_operators_command_did_has_no_actor(app: Flask, database: Any) -> None:
    office = Office(app, "km")
    _, wallet_id = office.member()
    database.as_superuser().execute(
        "INSERT INTO km_schema.audit_log (action, wallet_id, before, after) VALUES ('wallet.import', %s,"
        """ '{"creditLimitMinor": 0, "status": "active"}', '{"creditLimitMinor": 150, "status": "active"}')""",
        (wallet_id,),
    )
    database.as_superuser().execute("UPDATE km_schema.wallets SET credit_limit_minor = 150 WHERE id = %s", (wallet_id,))
    (change,) = office.get(f"wallets/{wallet_id}/credit-limits")["items"]
    assert (change["actorId"], change["action"], change["to"]) == (None, "wallet.import", "1.50")


def test_the_history_of_another_tenants_wallet_is_not_found(app: Flask) -> None:
    _, foreign = Office(app, "km").member(credit_limit_minor=7)
    office = Office(app, "eur")
    assert office.get(f"wallets/{foreign}/credit-limits", 404)["code"] == "wallet_not_found"
