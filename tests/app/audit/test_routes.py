"""Every action of admins and operators, and every refusal, has an entry in the log of its own tenant."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import Api
from tests.factories.people import People, Person

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
ADDRESS = "203.0.113.7"


class Office:
    """An admin of a tenant with a member's wallet of 100.00, calling from a known address."""

    def __init__(self, app: Flask, slug: str) -> None:
        people = People(app)
        self.api, self.slug = Api(app), slug
        self.admin = people.make(**{slug: "admin"})
        self.member = people.make(**{slug: "member"})
        self.wallet_id = people.wallet(self.member, slug, balance_minor=10_000)
        self.path = f"/api/admin/wallets/{self.wallet_id}"

    def send(self, method: str, path: str, who: Person | None = None, **more: Any) -> TestResponse:
        headers = {"Idempotency-Key": uuid4().hex, "X-Request-Id": "req-1"} | more.pop("headers", {})
        who = who or self.admin
        seen = {"environ_overrides": {"REMOTE_ADDR": ADDRESS}}
        return self.api.send(method, path, who, self.slug, headers=headers, **seen, **more)

    def log(self, who: Person | None = None, **filters: str) -> list[dict[str, Any]]:
        """The entries of one actor, by default the admin, newest first."""
        query = {"actorId": str((who or self.admin).user_id), "limit": "200"} | filters
        answer = self.api.get("/api/admin/audit-log", self.admin, self.slug, query_string=query)
        assert answer.status_code == 200, answer.text
        return list(answer.json["items"])


@pytest.fixture(params=["eur", "km"])
def office(request: pytest.FixtureRequest, app: Flask) -> Office:
    return Office(app, request.param)


DONE: list[tuple[str, Callable[[Office], tuple[str, str, dict[str, Any]]]]] = [
    ("wallet.deposit", lambda o: ("POST", f"{o.path}/deposits", {"amount": "5.00"})),
    ("wallet.payment", lambda o: ("POST", f"{o.path}/payments", {"amount": "5.00"})),
    ("wallet.adjustment", lambda o: ("POST", f"{o.path}/adjustments", {"amount": "-5.00", "reason": "a test"})),
    ("wallet.configure", lambda o: ("PATCH", o.path, {"creditLimit": "5.00"})),
    (
        "transactions.bulk",
        lambda o: (
            "POST",
            "/api/admin/transactions/bulk",
            {"items": [{"walletId": str(o.wallet_id), "type": "deposit", "amount": "5.00"}]},
        ),
    ),
    (
        "credit_policy.set",
        lambda o: (
            "PUT",
            f"/api/admin/credit-policies/{'EUR' if o.slug == 'eur' else 'BAM'}",
            {"defaultLimit": "0.00", "maxLimit": None},
        ),
    ),
]


@pytest.mark.parametrize(("action", "request_of"), DONE, ids=[action for action, _ in DONE])
def test_what_an_admin_does_is_told_with_who_what_and_from_where(
    office: Office, action: str, request_of: Callable[[Office], tuple[str, str, dict[str, Any]]]
) -> None:
    method, path, body = request_of(office)
    answer = office.send(method, path, json=body, headers={"If-Match": '"1"'} if method == "PATCH" else {})
    assert answer.status_code in {200, 201}, answer.text
    (entry,) = office.log()
    told = {name: entry[name] for name in ("action", "actorKind", "actorId", "requestId", "address", "refusal")}
    assert told == {
        "action": action,
        "actorKind": "user",
        "actorId": str(office.admin.user_id),
        "requestId": "req-1",
        "address": ADDRESS,
        "refusal": None,
    }


def test_a_movement_is_told_with_the_balance_before_and_after(office: Office) -> None:
    answer = office.send("POST", f"{office.path}/deposits", json={"amount": "5.00"})
    (entry,) = office.log()
    assert entry["walletId"] == str(office.wallet_id)
    assert entry["before"] == {"balance": "100.00"}
    assert entry["after"] == {"balance": "105.00", "amount": "5.00", "transactionId": answer.json["id"]}


def test_a_wallet_that_an_admin_opens_is_told(office: Office) -> None:
    person = People(office.api.client.application).make(**{office.slug: "member"})
    answer = office.send("POST", "/api/admin/wallets", json={"userId": str(person.user_id)})
    (entry,) = office.log()
    assert (entry["action"], entry["walletId"]) == ("wallet.open", answer.json["id"])


def test_a_repeated_request_is_told_as_a_repetition(office: Office) -> None:
    for _ in range(2):
        office.send("POST", f"{office.path}/deposits", json={"amount": "5.00"}, headers={"Idempotency-Key": "once"})
    second, first = office.log()
    assert "replayed" not in first["after"]
    assert second["after"] == first["after"] | {"replayed": True}


REFUSED = [
    ("POST", "deposits", {"amount": "-5.00"}, "validation_failed"),
    ("POST", "payments", {"amount": "500.00"}, "insufficient_funds"),
    ("POST", "refunds", {"paymentId": str(uuid4())}, "payment_not_found"),
    ("PATCH", "", {"status": "closed"}, "wallet_not_empty"),
]


@pytest.mark.parametrize(("method", "verb", "body", "code"), REFUSED, ids=[code for *_, code in REFUSED])
def test_what_is_refused_to_an_admin_is_told_with_the_code(
    office: Office, method: str, verb: str, body: dict[str, Any], code: str
) -> None:
    path = f"{office.path}/{verb}".rstrip("/")
    answer = office.send(method, path, json=body, headers={"If-Match": '"1"'} if method == "PATCH" else {})
    assert answer.json["code"] == code
    (entry,) = office.log()
    told = {name: entry[name] for name in ("refusal", "subject", "address", "requestId", "after")}
    assert told == {"refusal": code, "subject": path, "address": ADDRESS, "requestId": "req-1", "after": None}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_member_who_tries_an_admins_route_is_told_of(office: Office, method: str) -> None:
    path = "/api/admin/wallets" if method == "GET" else f"{office.path}/deposits"
    problem_of(office.send(method, path, office.member), 403, "admin_required")
    (entry,) = office.log(office.member)
    assert (entry["refusal"], entry["subject"], entry["actorKind"]) == ("admin_required", path, "user")


def test_a_safe_method_on_the_route_of_a_change_is_a_look(office: Office) -> None:
    """Flask answers OPTIONS at every route."""
    problem_of(office.send("OPTIONS", f"{office.path}/deposits", office.member), 403, "admin_required")
    (entry,) = office.log(office.member)
    assert (entry["action"], entry["refusal"]) == ("look", "admin_required")


def test_what_an_admin_only_looks_at_is_not_told(office: Office) -> None:
    for path in ("/api/admin/wallets", office.path, "/api/admin/trial-balance", "/api/admin/audit-log"):
        assert office.send("GET", path).status_code == 200
    assert office.send("GET", f"/api/admin/wallets/{uuid4()}").status_code == 404
    assert office.log() == []


def test_what_an_operator_does_and_looks_at_is_told_as_an_operators(
    office: Office, people: People, database: Database
) -> None:
    operator = people.make(is_operator=True)
    assert office.send("GET", office.path, operator).status_code == 200
    assert office.send("POST", f"{office.path}/deposits", operator, json={"amount": "1.00"}).status_code == 201
    configured = office.send("PATCH", office.path, operator, json={"status": "frozen"}, headers={"If-Match": '"1"'})
    assert configured.status_code == 200
    told = [(entry["action"], entry["actorKind"], entry["address"]) for entry in office.log(operator)]
    assert told == [(action, "operator", ADDRESS) for action in ("wallet.configure", "wallet.deposit", "look")]


@pytest.mark.parametrize("role", ["admin", "auditor", "member"])
def test_no_admin_takes_an_operators_mark_away_by_a_membership(
    office: Office, people: People, database: Database, role: str
) -> None:
    operator = people.make(is_operator=True, **{office.slug: role})
    assert office.send("GET", office.path, operator).status_code == 200
    assert office.send("POST", f"{office.path}/deposits", operator, json={"amount": "1.00"}).status_code == 201
    assert [entry["actorKind"] for entry in office.log(operator)] == ["operator", "operator"]


def test_an_operator_sees_nothing_if_the_look_can_not_be_told(
    office: Office, people: People, database: Database
) -> None:
    operator, superuser, schema = people.make(is_operator=True), database.as_superuser(), f"{office.slug}_schema"
    superuser.execute(f"ALTER TABLE {schema}.audit_chain RENAME TO hidden".encode())
    try:
        assert office.send("GET", office.path, operator).status_code == 500
        assert office.send("GET", office.path).status_code == 200, "an admin's look is not told anyway"
    finally:
        superuser.execute(f"ALTER TABLE {schema}.hidden RENAME TO audit_chain".encode())


def test_what_is_refused_to_an_operator_who_configures_a_tenant_is_told_there(
    office: Office, people: People, database: Database
) -> None:
    operator = people.make(is_operator=True)
    path = f"/api/admin/tenants/{office.slug}"
    answer = office.send("PATCH", path, operator, json={"settings": {"rateLimit": "often"}})
    problem_of(answer, 422, "validation_failed")
    (entry,) = office.log(operator)
    assert (entry["action"], entry["refusal"], entry["subject"]) == ("tenant.configure", "validation_failed", path)


def test_a_refused_dry_run_is_no_refusal_but_a_want_of_a_right_and_a_fault_of_the_request_are(office: Office) -> None:
    assert office.send("POST", f"{office.path}/payments?dryRun=true", json={"amount": "500.00"}).status_code == 409
    assert office.log() == []
    for query in ("dryRun=true&dryRun=true", "dryRun=1"):
        assert office.send("POST", f"{office.path}/payments?{query}", json={"amount": "500.00"}).status_code == 422
    office.send("POST", f"{office.path}/payments?dryRun=true", office.member, json={"amount": "1.00"})
    assert [entry["refusal"] for entry in office.log()] == ["validation_failed"] * 2
    assert [entry["refusal"] for entry in office.log(office.member)] == ["admin_required"]


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_a_parameter_that_the_route_has_not_keeps_no_refusal_out_of_the_log(office: Office, method: str) -> None:
    """The caller is known before the parameter is refused, and who is let in is told of the parameter."""
    path = f"{office.path}?unknown=1"
    problem_of(office.api.send(method, path, None, office.slug), 401, "token_missing")
    problem_of(office.send(method, path, office.member, json={}), 403, "admin_required")
    problem_of(office.send(method, path, json={}), 422, "validation_failed")
    assert [entry["refusal"] for entry in office.log(office.member)] == ["admin_required"]
    assert [entry["refusal"] for entry in office.log()] == (["validation_failed"] if method == "PATCH" else [])


@pytest.mark.parametrize("path", ["/api/admin/wallets", "/api/admin/audit-log"])
def test_no_parameter_keeps_a_refusal_out_of_the_log(office: Office, path: str) -> None:
    """These routes read a query, and have no dry run."""
    problem_of(office.send("GET", f"{path}?dryRun=true", office.member), 403, "admin_required")
    assert [entry["refusal"] for entry in office.log(office.member)] == ["admin_required"]


# What an operator sees, whatever the method.


def test_an_operators_look_by_a_post_is_told(office: Office, people: People) -> None:
    """A wallet that exists, a dry run, a refused dry run, and a change that changes nothing."""
    operator = people.make(is_operator=True)
    looks: list[tuple[str, str, dict[str, Any], int]] = [
        ("POST", "/api/admin/wallets", {"userId": str(office.member.user_id)}, 200),
        ("POST", f"{office.path}/payments?dryRun=true", {"amount": "1.00"}, 200),
        ("POST", f"{office.path}/payments?dryRun=true", {"amount": "500.00"}, 409),
        ("PATCH", f"/api/admin/members/{office.member.user_id}", {"role": "member"}, 200),
    ]
    for method, path, body, status in looks:
        assert office.send(method, path, operator, json=body).status_code == status, path
    told = [(entry["action"], entry["refusal"], entry["subject"]) for entry in reversed(office.log(operator))]
    assert told == [
        ("look", None, looks[0][1]),
        ("look", None, f"{office.path}/payments"),
        ("wallet.payment", "insufficient_funds", f"{office.path}/payments"),
        ("look", None, looks[3][1]),
    ]


def test_an_operator_sees_nothing_by_a_post_if_the_look_can_not_be_told(
    office: Office, people: People, database: Database
) -> None:
    operator, superuser, schema = people.make(is_operator=True), database.as_superuser(), f"{office.slug}_schema"
    superuser.execute(f"ALTER TABLE {schema}.audit_chain RENAME TO hidden".encode())
    try:
        body = {"userId": str(office.member.user_id)}
        answer = office.send("POST", "/api/admin/wallets", operator, json=body)
        assert (answer.status_code, "balance" in answer.text) == (500, False)
    finally:
        superuser.execute(f"ALTER TABLE {schema}.hidden RENAME TO audit_chain".encode())


# What a caller without a right may write.


def test_what_a_caller_without_a_right_tries_often_is_counted(office: Office, database: Database) -> None:
    """Ten of each action and caller have entries of their own; nobody's attempts hide another's or other actions."""
    other = People(office.api.client.application).make(**{office.slug: "member"})
    for who, path, times in ((office.member, "deposits", 13), (office.member, "refunds", 1), (other, "deposits", 1)):
        for _ in range(times):
            problem_of(office.send("POST", f"{office.path}/{path}", who, json={}), 403, "admin_required")
    assert [entry["action"] for entry in office.log(office.member)] == ["wallet.refund"] + ["wallet.deposit"] * 10
    assert [entry["action"] for entry in office.log(other)] == ["wallet.deposit"]
    superuser = database.as_superuser()
    superuser.execute(f"UPDATE {office.slug}_schema.audit_refusals SET began_at = began_at - interval '1 h'".encode())
    office.send("POST", f"{office.path}/deposits", other, json={})  # Anybody's next refusal ends the windows.
    (entry,) = office.log(office.member, action="requests.refused")
    assert (entry["subject"], entry["refusal"], entry["after"]["counted"]) == (
        "wallet.deposit",
        "admin_required",
        3,
    )
    assert office.log(other, action="requests.refused") == [], "one attempt needs no count"
    assert [text for (text,) in findings(database, office.slug) if "audit log" in text] == []


def findings(database: Database, slug: str) -> list[Any]:
    return database.as_tenant(slug).execute("SELECT finding FROM ledger_audit_v5()").fetchall()


def test_what_the_staff_may_do_and_is_refused_is_never_counted(office: Office) -> None:
    for _ in range(12):
        office.send("POST", f"{office.path}/payments", json={"amount": "500.00"})
    assert [entry["refusal"] for entry in office.log()] == ["insufficient_funds"] * 12


def test_a_subject_is_cut_and_made_of_known_characters(office: Office) -> None:
    path = "/api/admin/credit-policies/" + "š\u202e" * 200
    assert office.send("PUT", path, office.member, json={}).status_code == 403
    (entry,) = office.log(office.member)
    assert len(entry["subject"]) == 300
    assert entry["subject"].startswith("/api/admin/credit-policies/%C5%A1%E2%80%AE")
    assert entry["subject"].isascii()
    assert entry["subject"].isprintable()


def test_odd_entries_of_before_hide_no_other(office: Office, database: Database) -> None:
    """Entries that SQL could write before the database refused them are shown, and break no route."""
    odd = ['[1]', '"x"', '{"a": 1e400}', '{"a": ' * 500 + "1" + "}" * 500, '{"currency": {}, "balanceMinor": 1}',
           '{"b": "' + "x" * 30_000 + '"}', '{"creditLimitMinor": "x"}', '{"creditLimitMinor": 1e30}']  # fmt: skip
    superuser = database.as_superuser()
    superuser.execute(f"SET search_path TO {office.slug}_schema")
    superuser.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_chain")
    seqs = []
    for action in ("look", "credit_policy.set"):
        for state in odd:
            wallet_id = office.wallet_id if action == "look" else None
            made = superuser.execute(
                "INSERT INTO audit_log (seq, actor_kind, actor_id, action, wallet_id, before, after, hash)"
                " SELECT coalesce(max(seq), 0) + 1000, 'user', %s, %s, %s, %s::jsonb, '{}', ''"
                " FROM audit_log RETURNING seq",
                (office.admin.user_id, action, wallet_id, state),
            )
            seqs.append(made.fetchall()[0][0])
    superuser.execute("ALTER TABLE audit_log ENABLE TRIGGER audit_log_chain")
    shown = office.log()
    assert sorted(entry["seq"] for entry in shown) == seqs
    assert [len(entry["before"].get("unreadable", "")) for entry in shown[-4:]][:1] == [200]
    for path in ("credit-policy-changes", f"wallets/{office.wallet_id}/credit-limits"):
        assert office.send("GET", f"/api/admin/{path}").status_code == 200
    superuser.execute("SET session_replication_role TO replica")
    superuser.execute("DELETE FROM audit_log WHERE seq = ANY(%s)", (seqs,))


def test_a_posting_and_its_entry_are_one(office: Office, database: Database) -> None:
    """If the entry can't be written, no money moves."""
    superuser, schema = database.as_superuser(), f"{office.slug}_schema"
    before = balance_of(database, office)
    superuser.execute(f"ALTER TABLE {schema}.audit_chain RENAME TO hidden".encode())
    try:
        assert office.send("POST", f"{office.path}/deposits", json={"amount": "5.00"}).status_code == 500
        bulk = {"items": [{"walletId": str(office.wallet_id), "type": "deposit", "amount": "5.00"}]}
        assert office.send("POST", "/api/admin/transactions/bulk", json=bulk).status_code == 500
        assert balance_of(database, office) == before
    finally:
        superuser.execute(f"ALTER TABLE {schema}.hidden RENAME TO audit_chain".encode())
    assert office.send("POST", f"{office.path}/deposits", json={"amount": "5.00"}).status_code == 201


def balance_of(database: Database, office: Office) -> int:
    query = f"SELECT balance_minor FROM {office.slug}_schema.wallets WHERE id = %s"
    ((balance_minor,),) = database.as_superuser().execute(query, (office.wallet_id,)).fetchall()
    return int(balance_minor)


def test_the_log_can_be_filtered(office: Office) -> None:
    office.send("POST", f"{office.path}/deposits", json={"amount": "5.00"})
    office.send("POST", f"{office.path}/deposits", json={"amount": "0.00"})
    office.send("POST", f"{office.path}/payments", json={"amount": "5.00"})
    assert len(office.log(action="wallet.deposit")) == 2
    assert [entry["refusal"] for entry in office.log(refused="true")] == ["validation_failed"]
    assert [entry["action"] for entry in office.log(refused="false")] == ["wallet.payment", "wallet.deposit"]
    assert len(office.log(walletId=str(office.wallet_id))) == 2
    assert office.log(walletId=str(uuid4())) == []


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("refused", "yes", "not_a_boolean"),
        ("refused", "1", "not_a_boolean"),
        ("actorId", "urn:uuid:11111111-1111-4111-8111-111111111111", "not_a_uuid"),
        ("walletId", "11111111111141118111111111111111", "not_a_uuid"),
    ],
)
def test_a_filter_has_one_form(office: Office, name: str, value: str, code: str) -> None:
    answer = office.send("GET", "/api/admin/audit-log", query_string={name: value})
    (fault,) = problem_of(answer, 422, "validation_failed")["errors"]
    assert (fault["field"], fault["code"]) == (name, code)


def test_the_log_is_paged_without_gaps(office: Office) -> None:
    for _ in range(5):
        office.send("POST", f"{office.path}/deposits", json={"amount": "1.00"})
    expected = [entry["seq"] for entry in office.log()]
    seen, query = [], {"limit": "2", "actorId": str(office.admin.user_id)}
    while True:
        page = office.api.get("/api/admin/audit-log", office.admin, office.slug, query_string=query).json
        seen += [entry["seq"] for entry in page["items"]]
        if page["nextCursor"] is None:
            break
        query["cursor"] = page["nextCursor"]
    assert seen == expected


def test_a_tenant_reads_its_own_log_only(app: Flask) -> None:
    offices = {slug: Office(app, slug) for slug in ("eur", "km")}
    for office in offices.values():
        office.send("POST", f"{office.path}/deposits", json={"amount": "1.00"})
    for slug, other in (("eur", "km"), ("km", "eur")):
        answer = offices[slug].send("GET", "/api/admin/audit-log", query_string={"limit": "200"})
        actors = {entry["actorId"] for entry in answer.json["items"]}
        assert str(offices[slug].admin.user_id) in actors
        assert str(offices[other].admin.user_id) not in actors


def test_many_at_once_are_one_chain(app: Flask, database: Database) -> None:
    office = Office(app, "eur")

    def deposit(_: int) -> int:
        own = Api(app)
        headers = {"Idempotency-Key": uuid4().hex}
        person = People(app).make(eur="member")
        path = f"/api/admin/wallets/{People(app).wallet(person, 'eur')}/deposits"
        return own.send("POST", path, office.admin, "eur", headers=headers, json={"amount": "1.00"}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(deposit, range(24))) == {201}
    seqs = [entry["seq"] for entry in office.log()]
    assert len(seqs) == 24
    assert seqs == sorted(seqs, reverse=True)
    findings = database.as_tenant("eur").execute("SELECT finding FROM ledger_audit_v5()").fetchall()
    assert [text for (text,) in findings if "audit log" in text] == []


@OVER_TENANTS
def test_an_unknown_wallets_entry_tells_which_path_was_asked(app: Flask, slug: str) -> None:
    office, nobodys = Office(app, slug), UUID(int=1)
    answer = office.send("POST", f"/api/admin/wallets/{nobodys}/deposits", json={"amount": "1.00"})
    problem_of(answer, 404, "wallet_not_found")
    (entry,) = office.log()
    assert (entry["subject"], entry["walletId"]) == (f"/api/admin/wallets/{nobodys}/deposits", None)
