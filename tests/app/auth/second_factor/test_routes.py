"""The second factor: set up with a password, asked for at log-in, good once, and demanded where a tenant wants it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pyotp
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.auth.passwords import hash_password
from app.auth.second_factor.errors import SecondFactorRequired
from app.auth.second_factor.service import proves
from app.auth.sessions import start_session
from app.users.service import credentials_of
from tenant_schemas.flask import shared_side
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import Api
from tests.factories.application import running
from tests.factories.mail import Mailbox
from tests.factories.people import People, Person
from tests.factories.second_factor import switch_on

PASSWORD = "correct horse battery staple"
FACTOR = "/api/me/second-factor"


@pytest.fixture
def person(people: People) -> Person:
    return people.make(password_hash=hash_password(PASSWORD), eur="admin", km="admin")


def login(api: Api, person: Person, code: str | None = None, password: str = PASSWORD, **more: Any) -> TestResponse:
    body = {"email": person.email, "password": password} | ({} if code is None else {"code": code})
    return api.send("POST", "/api/auth/login", json=body, **more)


def logged_in(api: Api, person: Person, code: str | None = None) -> Person:
    answer = login(api, person, code)
    assert answer.status_code == 200, answer.text
    return Person(person.user_id, person.email, answer.json["accessToken"])


def proof(code: str, password: str = PASSWORD) -> dict[str, Any]:
    return {"json": {"currentPassword": password, "code": code}}


def test_a_factor_is_set_up_confirmed_and_asked_for(
    api: Api, person: Person, mailbox: Mailbox, database: Database
) -> None:
    made = api.post(FACTOR, person, json={"currentPassword": PASSWORD}).json
    assert pyotp.parse_uri(made["uri"]).secret == made["secret"]
    assert login(api, person).status_code == 200, "nothing asks for it until it is confirmed"
    confirmed = api.post(f"{FACTOR}/confirm", person, json={"code": pyotp.TOTP(made["secret"]).now()})
    assert len(set(confirmed.json["codes"])) == 10
    problem_of(login(api, person), 401, "second_factor_required")
    state = api.get(FACTOR, person).json
    assert (state["isOn"], state["recoveryCodesLeft"]) == (True, 10)
    assert mailbox.subjects(person.email) == ["Your second factor is on"]
    with database.as_superuser() as superuser:
        query = "SELECT f::text FROM shared.second_factors f WHERE user_id = %s"
        ((stored,),) = superuser.execute(query, (person.user_id,)).fetchall()
    assert made["secret"] not in stored
    assert made["secret"].encode().hex() not in stored


def test_a_code_logs_in_once(api: Api, person: Person) -> None:
    authenticator, _ = switch_on(api, person, PASSWORD)
    code = authenticator.code()
    assert login(api, person, code).status_code == 200
    problem_of(login(api, person, code), 401, "second_factor_wrong")
    assert login(api, person, authenticator.code()).status_code == 200


def test_of_one_code_at_two_places_at_once_one_is_taken(app: Flask, api: Api, person: Person) -> None:
    """At the service: the slots of log-ins would let one of the two wait."""
    authenticator, recovery = switch_on(api, person, PASSWORD)
    together = Barrier(2)

    def use(code: str) -> bool:
        with app.app_context():
            together.wait()
            return proves(person.user_id, code)

    with ThreadPoolExecutor(2) as pool:
        for code in (authenticator.code(), recovery[0], authenticator.code(), recovery[1]):
            assert sorted(pool.map(use, [code] * 2)) == [False, True]


def test_the_code_that_confirmed_it_does_not_log_in(api: Api, person: Person) -> None:
    secret = api.post(FACTOR, person, json={"currentPassword": PASSWORD}).json["secret"]
    code = pyotp.TOTP(secret).now()
    assert api.post(f"{FACTOR}/confirm", person, json={"code": code}).status_code == 200
    problem_of(login(api, person, code), 401, "second_factor_wrong")


def test_a_recovery_code_logs_in_once_however_it_is_typed(api: Api, person: Person) -> None:
    _, codes = switch_on(api, person, PASSWORD)
    typed = f" {codes[0].upper().replace('-', ' ')} "
    assert login(api, person, typed).status_code == 200
    problem_of(login(api, person, codes[0]), 401, "second_factor_wrong")
    assert api.get(FACTOR, person).json["recoveryCodesLeft"] == 9


@pytest.mark.parametrize("kind", ["recovery code", "authenticator"])
def test_a_log_in_to_a_wrong_tenant_uses_no_code_up_and_tells_nothing_before_one_is_right(
    api: Api, person: Person, kind: str
) -> None:
    authenticator, recovery = switch_on(api, person, PASSWORD)
    code = recovery[0] if kind == "recovery code" else authenticator.code()

    def at(tenant: str, code: str | None) -> TestResponse:
        return login(api, person, code, headers={"X-Tenant": tenant})

    problem_of(at("no-such", None), 401, "second_factor_required")
    problem_of(at("no-such", "aaaa-bbbb-cccc-dddd"), 401, "second_factor_wrong")
    problem_of(at("no-such", "000000"), 401, "second_factor_wrong")
    problem_of(at("no-such", code), 404, "tenant_not_found")
    assert at("eur", code).status_code == 200
    problem_of(at("no-such", code), 401, "second_factor_wrong")


def test_a_new_factor_ends_the_users_other_sessions_and_no_others(api: Api, people: People, person: Person) -> None:
    other = people.make(password_hash=hash_password(PASSWORD), eur="member")
    tokens = login(api, person).json
    switch_on(api, person, PASSWORD)
    headers = {"Authorization": f"Bearer {tokens['accessToken']}"}
    problem_of(api.get("/api/me", headers=headers), 401, "session_over")
    refreshed = api.send("POST", "/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
    problem_of(refreshed, 401, "session_over")
    assert [api.get("/api/me", each).status_code for each in (person, other)] == [200, 200]


def test_a_log_in_that_a_new_factor_overtakes_gets_no_session(app: Flask, api: Api, person: Person) -> None:
    """It has read that there is no factor, and starts its session after the factor was confirmed."""
    made = api.post(FACTOR, person, json={"currentPassword": PASSWORD}).json
    assert api.post(f"{FACTOR}/confirm", person, json={"code": pyotp.TOTP(made["secret"]).now()}).status_code == 200
    with app.app_context(), shared_side():
        known = credentials_of(person.user_id)
        with pytest.raises(SecondFactorRequired):
            start_session(person.user_id, known.password_hash, None, 60)
    assert len(api.get("/api/me/sessions", person).json["items"]) == 1


def test_a_new_password_forgets_a_factor_that_waits_for_its_confirmation(api: Api, person: Person) -> None:
    """A thief may have set it up: confirmed later, it would keep the owner out."""
    made = api.post(FACTOR, person, json={"currentPassword": PASSWORD}).json
    changed = {"currentPassword": PASSWORD, "newPassword": "another horse, another battery"}
    assert api.post("/api/auth/password", person, json=changed).status_code == 200
    confirmed = api.post(f"{FACTOR}/confirm", person, json={"code": pyotp.TOTP(made["secret"]).now()})
    problem_of(confirmed, 409, "second_factor_missing")


def test_a_wrong_password_learns_nothing_of_a_factor(api: Api, person: Person) -> None:
    authenticator, _ = switch_on(api, person, PASSWORD)
    for code in (None, "000000", authenticator.code()):
        problem_of(login(api, person, code, "wrong"), 401, "bad_credentials")
    assert login(api, person, authenticator.code()).status_code == 200


def test_a_code_of_another_user_or_moment_is_wrong(api: Api, people: People, person: Person) -> None:
    switch_on(api, person, PASSWORD)
    other = people.make(password_hash=hash_password(PASSWORD), eur="member")
    theirs, their_codes = switch_on(api, other, PASSWORD)
    for code in (theirs.code(), their_codes[0], "000000", "abcdef", "１２３４５６"):
        problem_of(login(api, person, code), 401, "second_factor_wrong")


def test_a_code_is_not_needed_by_who_has_no_factor(api: Api, person: Person) -> None:
    assert login(api, person, "123456").status_code == 200


def test_setting_it_up_needs_the_password_and_only_one_is_on(api: Api, people: People, person: Person) -> None:
    problem_of(api.post(FACTOR, person, json={"currentPassword": "wrong"}), 403, "wrong_password")
    problem_of(api.post(FACTOR, people.make(eur="member"), json={"currentPassword": "x"}), 409, "no_password")
    problem_of(api.post(f"{FACTOR}/confirm", person, json={"code": "123456"}), 409, "second_factor_missing")
    first = api.post(FACTOR, person, json={"currentPassword": PASSWORD}).json["secret"]
    second = api.post(FACTOR, person, json={"currentPassword": PASSWORD}).json["secret"]
    codes = [pyotp.TOTP(secret).now() for secret in (first, second)]
    problem_of(api.post(f"{FACTOR}/confirm", person, json={"code": codes[0]}), 403, "code_wrong")
    assert api.post(f"{FACTOR}/confirm", person, json={"code": codes[1]}).status_code == 200
    problem_of(api.post(FACTOR, person, json={"currentPassword": PASSWORD}), 409, "second_factor_exists")


def test_it_is_switched_off_with_both_proofs(api: Api, person: Person, mailbox: Mailbox) -> None:
    authenticator, codes = switch_on(api, person, PASSWORD)
    mailbox.collect(person.email)
    problem_of(api.post(f"{FACTOR}/remove", person, **proof(codes[0], "wrong")), 403, "wrong_password")
    problem_of(api.post(f"{FACTOR}/remove", person, **proof("000000")), 403, "code_wrong")
    assert api.post(f"{FACTOR}/remove", person, **proof(authenticator.code())).status_code == 204
    assert login(api, person).status_code == 200
    assert api.get(FACTOR, person).json == {"isOn": False, "confirmedAt": None, "recoveryCodesLeft": 0}
    assert mailbox.subjects(person.email) == ["Your second factor is off"]
    listed = api.get("/api/me/sessions", person).json["items"]
    assert {session["hasSecondFactor"] for session in listed} == {False}


def test_new_recovery_codes_replace_the_old_ones(api: Api, person: Person) -> None:
    authenticator, old = switch_on(api, person, PASSWORD)
    new = api.post(f"{FACTOR}/recovery-codes", person, **proof(authenticator.code())).json["codes"]
    assert len(new) == 10
    assert not set(new) & set(old)
    problem_of(login(api, person, old[0]), 401, "second_factor_wrong")
    assert login(api, person, new[0]).status_code == 200


def test_a_reset_of_the_password_leaves_the_factor_on(api: Api, person: Person, mailbox: Mailbox) -> None:
    switch_on(api, person, PASSWORD)
    mailbox.collect(person.email)
    api.send("POST", "/api/auth/password/forgotten", json={"email": person.email})
    body = {"token": mailbox.token(person.email), "newPassword": "another horse, another battery"}
    assert api.send("POST", "/api/auth/password/reset", json=body).status_code == 200
    problem_of(login(api, person, None, body["newPassword"]), 401, "second_factor_required")


def test_guesses_are_limited_and_hold_up_no_session(database: Database, person: Person) -> None:
    with running(database, second_factor_rate_limit="3/hour") as app:
        api = Api(app)
        switch_on(api, person, PASSWORD)
        assert [login(api, person, "000000").status_code for _ in range(4)] == [401, 401, 401, 429]
        assert api.get("/api/me", person).status_code == 200
        assert login(api, person, None, "wrong").status_code == 401


def test_right_codes_are_no_guesses_and_wrong_ones_have_a_daily_limit(database: Database, person: Person) -> None:
    with running(database, second_factor_rate_limit="2/minute", second_factor_daily_limit="1/day") as app:
        api = Api(app)
        _, codes = switch_on(api, person, PASSWORD)
        assert [login(api, person, code).status_code for code in codes[:4]] == [200] * 4
        refused = [login(api, person, code) for code in ("aaaa-bbbb-cccc-dddd", "000000")]
        assert [answer.status_code for answer in refused] == [401, 429]
        body = {"currentPassword": PASSWORD, "code": codes[5]}
        assert api.post("/api/me/second-factor/recovery-codes", person, json=body).status_code == 429


def test_to_be_asked_for_a_code_is_no_failed_log_in(database: Database, person: Person) -> None:
    """A client that asks for the code when it is needed sends each log-in twice."""
    with running(database, login_failure_limit="1/day") as app:
        api = Api(app)
        authenticator, _ = switch_on(api, person, PASSWORD)
        for _ in range(3):
            problem_of(login(api, person), 401, "second_factor_required")
        assert login(api, person, authenticator.code()).status_code == 200


def test_after_a_change_of_the_key_recovery_codes_still_log_in(api: Api, database: Database, person: Person) -> None:
    authenticator, codes = switch_on(api, person, PASSWORD)
    with running(database, secret_key="another key for tests, of 32 characters") as app:
        problem_of(login(Api(app), person, authenticator.code()), 401, "second_factor_wrong")
        assert login(Api(app), person, codes[0]).status_code == 200


# --- demanded of staff ---------------------------------------------------------------------------------------------


@pytest.fixture
def strict_tenant(database: Database) -> Iterator[str]:
    """A tenant that demands a second factor of its staff."""
    change = "UPDATE shared.tenants SET settings = settings {} WHERE slug = 'eur'"
    with database.as_superuser() as superuser:
        superuser.execute(change.format("""|| '{"require_second_factor": true}'""").encode())
    yield "eur"
    with database.as_superuser() as superuser:
        superuser.execute(change.format("- 'require_second_factor'").encode())


ROUTES_OF_STAFF = ("/api/admin/members", "/api/admin/wallets", "/api/admin/api-keys")


def test_a_tenant_demands_a_factor_of_its_staff_and_of_nobody_else(
    api: Api, people: People, person: Person, strict_tenant: str
) -> None:
    for path in ROUTES_OF_STAFF:
        problem_of(api.get(path, person, strict_tenant), 403, "second_factor_demanded")
        assert api.get(path, person, "km").status_code == 200
    for staff in (people.make(eur="auditor"), people.make(is_operator=True)):
        problem_of(api.get("/api/admin/members", staff, strict_tenant), 403, "second_factor_demanded")
    assert api.get("/api/wallet", person, strict_tenant).status_code == 200, "as a member"
    authenticator, _ = switch_on(api, person, PASSWORD)
    for session in (person, logged_in(api, person, authenticator.code())):
        assert api.get("/api/admin/members", session, strict_tenant).status_code == 200


def test_an_operators_list_leaves_a_strict_tenant_out_until_there_is_a_factor(
    api: Api, people: People, strict_tenant: str
) -> None:
    people.wallet(people.make(eur="member", km="member"), "eur")
    operator = people.make(password_hash=hash_password(PASSWORD), is_operator=True)

    def shown() -> tuple[set[str], list[str]]:
        page = api.get("/api/admin/wallets?limit=200", operator).json
        return {item["tenantId"] for item in page["items"]}, page["unavailable"]

    tenants, unavailable = shown()
    assert strict_tenant not in tenants
    assert unavailable == [strict_tenant]
    switch_on(api, operator, PASSWORD)
    tenants, unavailable = shown()
    assert strict_tenant in tenants
    assert unavailable == []


def test_an_operators_list_of_tenants_has_no_totals_of_a_strict_one_until_there_is_a_factor(
    api: Api, people: People, strict_tenant: str
) -> None:
    people.wallet(people.make(eur="member", km="member"), "eur")
    operator = people.make(password_hash=hash_password(PASSWORD), is_operator=True)

    def has_totals() -> dict[str, bool]:
        items = api.get("/api/admin/tenants?limit=200", operator).json["items"]
        return {item["id"]: item["totals"] is not None for item in items if item["id"] in {"eur", "km"}}

    assert has_totals() == {strict_tenant: False, "km": True}
    switch_on(api, operator, PASSWORD)
    assert has_totals() == {strict_tenant: True, "km": True}


def test_an_operator_without_a_factor_neither_shows_a_strict_tenant_nor_switches_its_demand_off(
    api: Api, people: People, strict_tenant: str
) -> None:
    operator = people.make(password_hash=hash_password(PASSWORD), is_operator=True)
    path, body = f"/api/admin/tenants/{strict_tenant}", {"settings": {"requireSecondFactor": False}}

    def configure() -> TestResponse:
        return api.send("PATCH", path, operator, json=body, headers={"If-Match": "*"})

    problem_of(api.get(path, operator), 403, "second_factor_demanded")
    problem_of(configure(), 403, "second_factor_demanded")
    switch_on(api, operator, PASSWORD)
    assert api.get(path, operator).json["settings"]["requireSecondFactor"] is True
    assert configure().status_code == 200


def test_an_api_key_is_not_asked(api: Api, people: People, person: Person, strict_tenant: str) -> None:
    switch_on(api, person, PASSWORD)
    body = {"name": "till", "role": "service", "expiresAt": "2027-01-01T00:00:00Z"}
    key = api.post("/api/admin/api-keys", person, strict_tenant, json=body).json["key"]
    assert api.get("/api/admin/wallets", Person(person.user_id, "", key), strict_tenant).status_code == 200


def test_the_refusal_is_in_the_audit_log(api: Api, person: Person, strict_tenant: str) -> None:
    problem_of(api.get("/api/admin/members", person, strict_tenant), 403, "second_factor_demanded")
    switch_on(api, person, PASSWORD)
    query = f"refused=true&actorId={person.user_id}"
    (entry,) = api.get(f"/api/admin/audit-log?{query}", person, strict_tenant).json["items"]
    assert entry["refusal"] == "second_factor_demanded"


def test_refusals_for_want_of_a_factor_are_bounded(
    api: Api, person: Person, strict_tenant: str, database: Database
) -> None:
    for _ in range(30):
        problem_of(api.get("/api/admin/members", person, strict_tenant), 403, "second_factor_demanded")
    superuser, schema = database.as_superuser(), f"{strict_tenant}_schema"
    entries = f"SELECT action, after -> 'counted' FROM {schema}.audit_log WHERE actor_id = %s ORDER BY seq"
    assert len(superuser.execute(entries.encode(), (person.user_id,)).fetchall()) == 10
    superuser.execute(f"UPDATE {schema}.audit_refusals SET began_at = began_at - interval '1 h'".encode())
    database.as_tenant(strict_tenant).execute("SELECT audit_refusals_end_v1()")
    *_, last = superuser.execute(entries.encode(), (person.user_id,)).fetchall()
    assert last == ("requests.refused", 20)


def test_the_installation_demands_a_factor_of_its_operators(database: Database, people: People) -> None:
    operator = people.make(password_hash=hash_password(PASSWORD), is_operator=True)
    admin = people.make(eur="admin")
    with running(database, operator_second_factor=True) as app:
        api = Api(app)
        for path, tenant in (("/api/admin/tenants", None), ("/api/admin/wallets", None), ("/api/admin/wallets", "eur")):
            problem_of(api.get(path, operator, tenant), 403, "second_factor_demanded")
        assert api.get("/api/admin/wallets", admin, "eur").status_code == 200
        switch_on(api, operator, PASSWORD)
        assert api.get("/api/admin/tenants", operator).status_code == 200
