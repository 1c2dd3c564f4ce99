"""The tenant of a request: no caller enters, or learns of, a tenant to which they do not belong.

All tests go over HTTP. A test that suspends, renames or leaves behind a tenant has a database of its own.
"""

import re
from collections.abc import Callable
from functools import partial
from io import BytesIO
from itertools import permutations
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask import Blueprint, Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

import app as application
from app import create_app
from app.api import requests
from app.auth.access import API_PREFIX, Access
from app.tenancy import RESERVED_SLUGS
from tenant_schemas import registry
from tenant_schemas.flask import EXTENSION, first_segments
from tenant_schemas.roles import become_owner
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.tenant import TenantStatus
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.people import People, Person

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
CURRENCY = {"eur": "EUR", "km": "BAM"}


class Caller:
    """One person with every way to name a tenant."""

    def __init__(self, app: Flask, database: Database, person: Person) -> None:
        self.api, self.person, self._people = Api(app), person, People(app)
        self._ids = {tenant.slug: tenant.id for tenant in database.tenants()}
        self._tokens: dict[UUID, str] = {}

    def get(
        self,
        path: str = "/wallet",
        *,
        header: str | None = None,
        in_path: str | None = None,
        host: str | None = None,
        claim: str | UUID | None = None,
    ) -> TestResponse:
        """GET a path below /api. Each given tenant is named by slug; a claim by slug or by id."""
        headers = {"Host": host} if host else {}
        if header is not None:
            headers["X-Tenant"] = header
        if claim is not None:
            headers["Authorization"] = f"Bearer {self.claiming(claim)}"
        else:
            headers["Authorization"] = f"Bearer {self.person.token}"
        return self.api.client.get(f"/api/{in_path}{path}" if in_path else f"/api{path}", headers=headers)

    def claiming(self, claim: str | UUID) -> str:
        """The person's token for this tenant, issued once."""
        tenant_id = claim if isinstance(claim, UUID) else self._ids[claim]
        if tenant_id not in self._tokens:
            self._tokens[tenant_id] = self._people.token(self.person.user_id, tenant_id)
        return self._tokens[tenant_id]


@pytest.fixture
def member(app: Flask, database: Database, people: People) -> Caller:
    """A member of both tenants."""
    return Caller(app, database, people.make(eur="member", km="member"))


def tenant_of(response: TestResponse) -> str:
    assert response.status_code == 200, response.text
    wallet = response.json
    assert wallet["currency"] == CURRENCY[wallet["tenantId"]]
    return str(wallet["tenantId"])


# --- naming a tenant -----------------------------------------------------------------------------------------------


@OVER_TENANTS
def test_each_way_of_naming_a_tenant_leads_to_it(member: Caller, slug: str) -> None:
    assert tenant_of(member.get(header=slug)) == slug
    assert tenant_of(member.get(in_path=slug)) == slug
    assert tenant_of(member.get(claim=slug)) == slug
    assert tenant_of(member.get(host=f"{slug}.wallet.example")) == slug
    assert tenant_of(member.get(host=f"{slug.upper()}.Wallet.Example.:8000")) == slug


@OVER_TENANTS
def test_ways_that_agree_may_be_combined(member: Caller, slug: str) -> None:
    assert tenant_of(member.get(header=slug, in_path=slug, claim=slug, host=f"{slug}.wallet.example")) == slug


@pytest.mark.parametrize("host", ["wallet.example", "eur.example", "evilwallet.example", "127.0.0.1", "[::1]:80"])
def test_there_is_no_default_tenant(member: Caller, host: str) -> None:
    problem_of(member.get(), 400, "tenant_required")
    problem_of(member.get(header=""), 400, "tenant_required")
    problem_of(member.get(host=host), 400, "tenant_required")


def ways(slug: str) -> dict[str, dict[str, Any]]:
    return {
        "header": {"header": slug},
        "path": {"in_path": slug},
        "host": {"host": f"{slug}.wallet.example"},
        "claim": {"claim": slug},
    }


@pytest.mark.parametrize(("first", "second"), [*permutations(["header", "path", "host", "claim"], 2)])
def test_two_ways_that_disagree_are_ambiguous(member: Caller, first: str, second: str) -> None:
    for one, other in (("eur", "km"), ("km", "eur")):
        problem_of(member.get(**ways(one)[first], **ways(other)[second]), 400, "tenant_ambiguous")


@pytest.mark.parametrize("other", ["nope", "EUR", "a.b", "x" * 5_000])
@OVER_TENANTS
def test_a_disagreement_is_the_same_whether_the_other_tenant_exists_or_not(
    member: Caller, slug: str, other: str
) -> None:
    existing = {"eur": "km", "km": "eur"}[slug]
    for way in ("header", "path"):
        answers = [member.get(claim=slug, **ways(named)[way]) for named in (existing, other)]
        assert looks(answers[0]) == looks(answers[1])
        problem_of(answers[1], 400, "tenant_ambiguous")
    problem_of(member.get(header=slug, in_path=other), 400, "tenant_ambiguous")
    problem_of(member.get(header=other, in_path=slug), 400, "tenant_ambiguous")


@OVER_TENANTS
def test_a_claim_for_an_id_that_no_tenant_has_is_not_found(member: Caller, slug: str) -> None:
    problem_of(member.get(claim=uuid4()), 404, "tenant_not_found")
    problem_of(member.get(claim=uuid4(), header=slug), 404, "tenant_not_found")


@OVER_TENANTS
def test_a_doubled_slash_does_not_shed_the_tenant_of_the_path(member: Caller, slug: str) -> None:
    """After a redirect to a path without the slug, a header could name another tenant unchallenged."""
    response = member.get("//wallet", in_path=slug, header={"eur": "km", "km": "eur"}[slug])
    moved_to = response.headers.get("Location", "")
    assert response.status_code in {400, 404} or f"/{slug}/" in moved_to, (response.status_code, moved_to)


def test_what_a_proxy_might_add_names_no_tenant_and_changes_no_route(member: Caller) -> None:
    """No proxy is trusted by default, so any client can send these headers."""
    token = {"Authorization": f"Bearer {member.person.token}"}
    for header in ("X-Forwarded-Host", "X-Host", "X-Original-Host", "X-Tenant-Id", "X-Tenants", "Tenant"):
        for named in ("km", "km.wallet.example"):
            response = member.api.client.get("/api/wallet", headers={**token, header: named})
            problem_of(response, 400, "tenant_required")
    for header in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Script-Name"):
        response = member.api.client.get("/api/eur/wallet", headers={**token, header: "/api/km/wallet"})
        assert tenant_of(response) == "eur"
    overridden = member.api.client.get("/api/eur/wallet", headers={**token, "X-HTTP-Method-Override": "DELETE"})
    assert tenant_of(overridden) == "eur"


# --- names that are none -------------------------------------------------------------------------------------------

NOT_SLUGS = (
    *("EUR", "Eur", "eur.", ".eur", "e ur", "eur;km", "eur km", "'eur'", '"eur"', "e\tur", "%65ur"),
    *("eur--", "eur' OR '1'='1", "eur'; DROP SCHEMA eur_schema CASCADE; --", "eur_schema", "tenant_eur", "%", "_", "*"),
    *("shared", "public", "pg_catalog", "information_schema", "..", ".", "0", "-1", "null", "None", "true", "[]", "{}"),
    *("еur", "ｅｕｒ", "eür", "eur\u200b", "ⅇur", "\u202eeur", "𝖊𝖚𝖗", "eur\x7f", "x" * 33, "x" * 100_000),
)


def test_what_is_no_slug_of_a_tenant_is_not_found(member: Caller) -> None:
    reference = looks(member.get(header="nope"))
    for slug in NOT_SLUGS:
        on_the_wire = slug.encode().decode("latin-1")
        assert looks(member.get(header=on_the_wire)) == reference, slug


NOT_SEGMENTS = (
    *("EUR", "eur.", "eur%20", "%20eur", "e%00ur", "%00", "eur%0a", "eur%2C", "e%C3%BCr", "%D0%B5ur", "%ff", "eur;"),
    *(".", "..", "eur'--", "shared", "tenant_eur", "x" * 50_000, "%2565ur"),
)


def test_what_is_no_slug_of_a_tenant_is_not_found_in_the_path_either(member: Caller) -> None:
    """Including a NUL, which must not reach PostgreSQL."""
    reference = looks(member.get(in_path="nope"))
    for segment in NOT_SEGMENTS:
        assert looks(member.get(in_path=segment)) == reference, segment


def test_white_space_round_a_header_and_its_repetition_are_no_part_of_the_name(member: Caller) -> None:
    """RFC 9110, 5.3 and 5.5: a server may join repeated headers with commas. White space alone names nothing."""
    for header in (" eur", "eur ", "\teur \t", "eur,eur", "eur, eur", ",eur"):
        assert tenant_of(member.get(header=header)) == "eur"
        problem_of(member.get(header=header, in_path="km"), 400, "tenant_ambiguous")
    for header in ("eur,km", "eur, nope", "eur,EUR"):
        problem_of(member.get(header=header), 400, "tenant_ambiguous")
    for header in (" ", ",", " , "):
        problem_of(member.get(header=header), 400, "tenant_required")


def test_an_escaped_path_is_the_same_path(member: Caller) -> None:
    """RFC 3986, 6.2.2.2: %65 is an e."""
    assert tenant_of(member.get(in_path="%65ur")) == "eur"
    problem_of(member.get(in_path="%65ur", header="km"), 400, "tenant_ambiguous")


@pytest.mark.parametrize("host", ["a.b", "eur.km", "xn--eur", "-", "tenant-eur", "0", "x" * 60])
def test_what_is_no_slug_of_a_tenant_is_not_found_in_the_host_either(member: Caller, host: str) -> None:
    problem_of(member.get(host=f"{host}.wallet.example"), 404, "tenant_not_found")


def test_a_malformed_host_names_no_tenant(member: Caller) -> None:
    for host in ("eur.wallet.example/x", "e ur.wallet.example", "eur@wallet.example", "eur.wallet.example:80:90"):
        problem_of(member.get(host=host), 400, "tenant_required")


# Hypothesis tries the words that our sources hold, so it does find the names that are tenants.
ANY_NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\r\n"), min_size=1, max_size=40).filter(
    lambda named: named.strip() not in {"eur", "km"}
)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(named=ANY_NAME, way=st.sampled_from(["header", "path"]))
def test_no_name_of_a_tenant_breaks_the_service(member: Caller, named: str, way: str) -> None:
    raw = named.encode().decode("latin-1")
    environment = {"HTTP_X_TENANT": raw} if way == "header" else {"PATH_INFO": f"/api/{raw}/wallet"}
    headers = {"Authorization": f"Bearer {member.person.token}"}
    response = member.api.client.get("/api/wallet", headers=headers, environ_overrides=environment)
    assert 400 <= response.status_code < 500


# --- tenants that may not be entered -------------------------------------------------------------------------------


def looks(response: TestResponse) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Everything by which a caller can tell answers apart."""
    headers = [(name, value) for name, value in response.headers if name not in {"X-Request-Id", "Date"}]
    return response.status_code, response.data, headers


def set_status(database: Database, slug: str, status: TenantStatus) -> None:
    tenant_id = database.tenant(slug).id
    with database.admin_engine().begin() as connection:
        become_owner(connection, database.roles)
        registry.set_status(connection, tenant_id, status)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement and every checkout of a connection during a test."""
    seen: list[str] = []
    one_statement, connect = BindingEngine.one_statement, BindingEngine.connect

    def counting_statement(self: BindingEngine, query: Any, *rest: Any, **more: Any) -> Any:
        seen.append(query)
        return one_statement(self, query, *rest, **more)

    def counting_connect(self: BindingEngine) -> sa.Connection:
        seen.append("connect")
        return connect(self)

    monkeypatch.setattr(BindingEngine, "one_statement", counting_statement)
    monkeypatch.setattr(BindingEngine, "connect", counting_connect)
    return seen


def test_unknown_suspended_archived_and_foreign_tenants_look_alike(
    fresh_app: Flask, fresh_database: Database, counted: list[str]
) -> None:
    """The same status, bytes, headers and database work, for every way of naming a tenant."""
    people = People(fresh_app)
    outsider = Caller(fresh_app, fresh_database, people.make(eur="admin"))
    insider = Caller(fresh_app, fresh_database, people.make(eur="admin", km="admin"))
    unknown_id = uuid4()

    def attempts(caller: Caller, slug: str, claim: Any) -> list[tuple[Any, list[str]]]:
        made = []
        caller.claiming(claim)
        for path in ("/wallet", "/admin/wallets", "/wallet/transactions"):
            for way in ({"header": slug}, {"in_path": slug}, {"host": f"{slug}.wallet.example"}, {"claim": claim}):
                counted.clear()
                made.append((looks(caller.get(path, **way)), list(counted)))
        return made

    foreign = attempts(outsider, "km", "km")
    assert {(answer[0], len(statements)) for answer, statements in foreign} == {(404, 1)}
    assert attempts(insider, "nope", unknown_id) == foreign
    for status in (TenantStatus.SUSPENDED, TenantStatus.ARCHIVED):
        assert insider.get(header="km").status_code == 200
        set_status(fresh_database, "km", status)
        assert attempts(insider, "km", "km") == foreign
        problem_of(insider.get(header="km"), 404, "tenant_not_found")
        set_status(fresh_database, "km", TenantStatus.ACTIVE)


def test_a_suspension_holds_from_the_next_request_on_and_ends_the_same_way(
    fresh_app: Flask, fresh_database: Database
) -> None:
    caller = Caller(fresh_app, fresh_database, People(fresh_app).make(eur="member", km="member"))
    for status, km_answers in ((TenantStatus.SUSPENDED, 404), (TenantStatus.ACTIVE, 200), (TenantStatus.ARCHIVED, 404)):
        assert caller.get(header="eur").status_code == 200
        set_status(fresh_database, "km", status)
        assert caller.get(header="km").status_code == km_answers
        assert caller.get(claim="km").status_code == km_answers
        assert caller.get(header="eur").status_code == 200
        shown = caller.get("/me").json["memberships"]
        assert ("km" in {membership["tenantId"] for membership in shown}) is (km_answers == 200)


@OVER_TENANTS
def test_a_removed_member_is_out_at_the_next_request(member: Caller, database: Database, slug: str) -> None:
    assert member.get(header=slug).status_code == 200
    database.as_superuser().execute(
        "DELETE FROM shared.memberships WHERE user_id = %s AND tenant_id = %s",
        (member.person.user_id, database.tenant(slug).id),
    )
    problem_of(member.get(header=slug), 404, "tenant_not_found")
    problem_of(member.get(claim=slug), 404, "tenant_not_found")
    assert member.get(header={"eur": "km", "km": "eur"}[slug]).status_code == 200


@OVER_TENANTS
def test_a_disabled_user_is_out_at_the_next_request(member: Caller, database: Database, slug: str) -> None:
    assert member.get(header=slug).status_code == 200
    database.as_superuser().execute(
        "UPDATE shared.users SET status = 'disabled' WHERE id = %s", (member.person.user_id,)
    )
    problem_of(member.get(header=slug), 401, "session_over")
    problem_of(member.get(claim=slug), 401, "session_over")
    problem_of(member.get("/me"), 401, "session_over")
    problem_of(member.get(header="nope"), 401, "session_over")


def test_a_token_dies_with_its_tenant_even_if_the_slug_is_used_again(
    fresh_app: Flask, fresh_database: Database
) -> None:
    """The claim is the tenant's id, not its slug."""
    person = People(fresh_app).make(eur="member", km="member")
    caller = Caller(fresh_app, fresh_database, person)
    old_id, new_id = fresh_database.tenant("eur").id, uuid4()
    assert tenant_of(caller.get(claim=old_id)) == "eur"
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER TABLE shared.memberships DROP CONSTRAINT memberships_tenant_fkey")
    superuser.execute("UPDATE shared.tenants SET id = %s WHERE id = %s", (new_id, old_id))
    superuser.execute("UPDATE shared.memberships SET tenant_id = %s WHERE tenant_id = %s", (new_id, old_id))
    assert {"tenantId": "eur", "role": "member"}.items() <= caller.get("/me").json["memberships"][0].items()
    problem_of(caller.get(claim=old_id), 404, "tenant_not_found")
    problem_of(caller.get(claim=old_id, header="eur"), 404, "tenant_not_found")
    problem_of(caller.get(claim=new_id, header="km"), 400, "tenant_ambiguous")


def test_a_token_follows_its_tenant_to_another_slug(fresh_app: Flask, fresh_database: Database) -> None:
    caller = Caller(fresh_app, fresh_database, People(fresh_app).make(eur="member"))
    claim = fresh_database.tenant("eur").id
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET slug = 'new', role_name = 'tenant_new' WHERE slug = 'eur'")
    problem_of(caller.get(claim=claim, header="eur"), 400, "tenant_ambiguous")
    problem_of(caller.get(header="eur"), 404, "tenant_not_found")
    assert caller.get(claim=claim, header="new").status_code == 503, "let in; the role of this name was never made"


# --- roles ---------------------------------------------------------------------------------------------------------


def routes(app: Flask) -> list[tuple[str, str, Access]]:
    """Method, path and access of every route of the API."""
    return [
        (method, re.sub(r"<uuid:\w+>", str(uuid4()), rule.rule), who)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(API_PREFIX)
        for who in [app.view_functions[rule.endpoint].access]  # type: ignore[attr-defined]
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


def test_every_route_says_who_may_call_it_and_those_below_admin_say_admin(app: Flask) -> None:
    marked = routes(app)
    assert len(marked) > 10
    assert {path for _, path, who in marked if who is Access.ANYONE} == {
        *("/api/auth/login", "/api/auth/refresh", "/api/auth/logout"),
        *("/api/auth/password/forgotten", "/api/auth/password/reset"),
        *("/api/auth/email/confirm", "/api/auth/invitations/accept"),
    }
    of_users = {path for _, path, who in marked if who is Access.USER}
    assert {path for path in of_users if not path.startswith("/api/me")} == {"/api/auth/password"}
    assert {who for _, path, who in marked if path.startswith("/api/admin/tenants")} <= {Access.OPERATOR}
    others = [who for _, path, who in marked if path.startswith("/api/admin/") and "/admin/tenants" not in path]
    assert set(others) == {Access.ADMIN, Access.TELLER, Access.READER}
    assert {who for _, path, who in marked if path.startswith("/api/wallet")} == {Access.MEMBER}


def test_an_application_with_an_unmarked_route_does_not_start(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    feature = Blueprint("forgotten", __name__)
    feature.add_url_rule("/api/forgotten", view_func=lambda: "everybody's")
    monkeypatch.setattr(application, "health", feature)
    with pytest.raises(RuntimeError, match="/api/forgotten"):
        create_app(settings_for(database))


def test_no_route_of_ours_can_be_taken_for_a_tenant(app: Flask) -> None:
    assert first_segments(app, API_PREFIX) <= RESERVED_SLUGS


def test_no_route_but_login_answers_without_a_token(app: Flask, api: Api) -> None:
    for method, path, who in routes(app):
        if who is not Access.ANYONE:
            for prefix in ("", "eur/", "nope/"):
                response = api.send(method, path.replace("/api/", f"/api/{prefix}"), tenant="eur", json={})
                problem_of(response, 401, "token_missing")


@OVER_TENANTS
def test_no_route_of_a_tenant_answers_a_stranger(app: Flask, api: Api, people: People, slug: str) -> None:
    stranger = people.make(**{{"eur": "km", "km": "eur"}[slug]: "admin"})
    for method, path, who in routes(app):
        if who in {Access.MEMBER, Access.ADMIN}:
            problem_of(api.send(method, path, stranger, slug, json={}), 404, "tenant_not_found")
            problem_of(api.send(method, path, stranger, json={}), 400, "tenant_required")


@OVER_TENANTS
def test_no_admin_route_answers_a_member_even_one_who_is_admin_elsewhere(
    app: Flask, api: Api, people: People, slug: str
) -> None:
    elsewhere = {"eur": "km", "km": "eur"}[slug]
    person = people.make(**{slug: "member", elsewhere: "admin"})
    for method, path, who in routes(app):
        if who is Access.ADMIN:
            problem_of(api.send(method, path, person, slug, json={}), 403, "admin_required")
    assert api.get("/api/admin/wallets/" + str(people.wallet(person, elsewhere)), person, elsewhere).status_code == 200


@OVER_TENANTS
def test_an_operator_has_no_wallet_in_a_tenant_but_sees_all_of_them(
    api: Api, people: People, database: Database, slug: str
) -> None:
    operator = people.make(is_operator=True)
    assert api.get("/api/me", operator).json["isOperator"] is True
    problem_of(api.get("/api/wallet", operator, slug), 404, "tenant_not_found")
    assert api.get("/api/admin/wallets", operator, slug).status_code == 200


@OVER_TENANTS
def test_a_role_that_changes_counts_from_the_next_request_on(
    api: Api, people: People, database: Database, slug: str
) -> None:
    person = people.make(eur="member", km="member")
    wallet = f"/api/admin/wallets/{people.wallet(person, slug)}"
    where = (person.user_id, database.tenant(slug).id)
    superuser = database.as_superuser()
    for role, status in (("member", 403), ("admin", 200), ("member", 403)):
        superuser.execute(
            "UPDATE shared.memberships SET role = %s WHERE user_id = %s AND tenant_id = %s", (role, *where)
        )
        assert api.get(wallet, person, slug).status_code == status


def test_ids_of_one_tenant_mean_nothing_in_the_other(api: Api, people: People) -> None:
    """An admin of both tenants finds neither km's wallet nor its transaction through eur."""
    admin = people.make(eur="admin", km="admin")
    wallets = {slug: people.wallet(admin, slug, balance_minor=1_000) for slug in ("eur", "km")}
    paid = api.post("/api/wallet/payments", admin, "km", json={"amount": "1.00"}).json["id"]
    assert api.get(f"/api/wallet/transactions/{paid}", admin, "km").status_code == 200
    problem_of(api.get(f"/api/wallet/transactions/{paid}", admin, "eur"), 404, "transaction_not_found")
    foreign = f"/api/admin/wallets/{wallets['km']}"
    problem_of(api.get(foreign, admin, "eur"), 404, "wallet_not_found")
    problem_of(api.get(f"{foreign}/transactions", admin, "eur"), 404, "wallet_not_found")
    problem_of(api.patch(foreign, admin, "eur", if_match='"1"', json={"status": "frozen"}), 404, "wallet_not_found")
    for what in ("deposits", "payments"):
        answer = api.post(f"{foreign}/{what}", admin, "eur", json={"amount": "1.00"})
        problem_of(answer, 404, "wallet_not_found")
    own = f"/api/admin/wallets/{wallets['eur']}/refunds"
    problem_of(api.post(own, admin, "eur", json={"paymentId": paid}), 404, "payment_not_found")
    assert api.get("/api/wallet", admin, "km").json["balance"] == "9.00"
    assert api.get("/api/wallet", admin, "eur").json["balance"] == "10.00"


# --- tenants that are behind ---------------------------------------------------------------------------------------


def test_a_tenant_that_is_behind_is_turned_away_and_the_other_is_served(
    fresh_app: Flask, fresh_database: Database
) -> None:
    person = People(fresh_app).make(eur="admin", km="admin")
    outsider = People(fresh_app).make(km="admin")
    api, superuser = Api(fresh_app), fresh_database.as_superuser()
    superuser.execute("UPDATE shared.tenants SET revision = '0000' WHERE slug = 'eur'")
    for path in ("/api/wallet", "/api/admin/wallets", "/api/wallet/transactions"):
        response = api.get(path, person, "eur")
        problem_of(response, 503, "schema_behind")
        assert int(response.headers["Retry-After"]) > 0
    assert api.get("/api/wallet", person, "km").status_code == 200
    problem_of(api.get("/api/wallet", outsider, "eur"), 404, "tenant_not_found")
    ready = api.get("/readyz")
    assert (ready.status_code, ready.json) == (200, {"status": "ready"})
    superuser.execute("UPDATE shared.tenants SET revision = '9999' WHERE slug = 'eur'")
    assert api.get("/api/wallet", person, "eur").status_code == 200, "one that is ahead is served: migrations expand"


def test_without_a_base_domain_no_host_names_a_tenant(database: Database, people: People) -> None:
    person = people.make(eur="member")
    app = create_app(settings_for(database, base_domain=""))
    try:
        caller = Caller(app, database, person)
        problem_of(caller.get(host="eur.wallet.example"), 400, "tenant_required")
        assert tenant_of(caller.get(host="km.wallet.example", header="eur")) == "eur"
    finally:
        app.extensions[EXTENSION].close()


def test_a_token_for_one_tenant_does_nothing_to_others_even_an_operators(
    api: Api, people: People, database: Database
) -> None:
    operator = people.make(is_operator=True)
    token = people.token(operator.user_id, database.tenant("km").id)
    headers = {"Authorization": f"Bearer {token}"}
    for method, path in (("GET", "/api/admin/tenants"), ("PATCH", "/api/admin/tenants/eur")):
        body = None if method == "GET" else {"name": "eur"}
        problem_of(api.send(method, path, headers=headers, json=body), 400, "tenant_ambiguous")


def test_every_first_segment_of_a_real_route_is_reserved(app: Flask) -> None:
    """Otherwise a tenant with that slug could exist, and its paths would never reach it."""
    segments = first_segments(app, API_PREFIX)
    assert segments
    assert segments <= RESERVED_SLUGS
    assert not [segment for segment in segments if not segment.isidentifier()]


# --- bodies that come slowly -----------------------------------------------------------------------------------------


class LateBody(BytesIO):
    """A body during which something happens."""

    def __init__(self, body: bytes, happens: Callable[[], object]) -> None:
        super().__init__(body)
        self._happens = happens

    def read(self, size: int | None = -1) -> bytes:
        self._happens()
        return super().read(size)


def send_late(api: Api, path: str, person: Person, tenant: str | None, happens: Callable[[], object]) -> TestResponse:
    body = b'{"amount": "5.00"}' if tenant else b'{"name": "Another Name"}'
    late = {"input_stream": LateBody(body, happens), "content_type": "application/json"}
    environ = {"CONTENT_LENGTH": str(len(body))}
    return api.send("POST" if tenant else "PATCH", path, person, tenant, headers=KEY, environ_base=environ, **late)


KEY = {"Idempotency-Key": "late"}


def test_a_removed_admins_deposit_does_not_wait_for_its_last_byte(
    app: Flask, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "SLOW_BODY_SECONDS", -1.0)
    api, people = Api(app), People(app)
    admin = people.make(eur="admin", km="admin")
    path = f"/api/admin/wallets/{people.wallet(admin, 'eur')}/deposits"
    assert send_late(api, path, admin, "eur", lambda: None).status_code == 201
    gone = "DELETE FROM shared.memberships WHERE user_id = %s AND tenant_role = 'tenant_eur'"
    remove = partial(database.as_superuser().execute, gone, (admin.user_id,))
    problem_of(send_late(api, path.replace("deposits", "adjustments"), admin, "eur", remove), 404, "tenant_not_found")


def test_an_ended_session_changes_no_account_with_its_last_byte(
    app: Flask, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "SLOW_BODY_SECONDS", -1.0)
    api, person = Api(app), People(app).make(eur="member")
    over = "UPDATE shared.sessions SET ended_at = now(), end_reason = 'logout' WHERE user_id = %s"
    end = partial(database.as_superuser().execute, over, (person.user_id,))
    problem_of(send_late(api, "/api/me", person, None, end), 401, "session_over")
