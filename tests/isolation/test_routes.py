"""Every route of the application with every kind of caller, in two tenants and both login modes.

The list of routes comes from `app.url_map`: a new route without a sample request fails here.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.api.headers import View
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.people import People
from tests.isolation.samples import ANYONE, BASE_DOMAIN, OF_TENANTS, OTHER, ROLES, SAMPLES, TENANTS, Sample, World

OVER_SAMPLES = pytest.mark.parametrize("sample", SAMPLES, ids=str)
OVER_TENANT_ROUTES = pytest.mark.parametrize("sample", OF_TENANTS, ids=str)
OVER_TENANTS = pytest.mark.parametrize("slug", TENANTS)

# The access check's refusals.
TURNED_AWAY = {
    *("token_missing", "token_invalid", "token_expired", "session_over"),
    *("tenant_required", "tenant_ambiguous", "tenant_not_found"),
    *("admin_required", "member_required", "user_required", "operator_required"),
}
ONCE_ONLY: tuple[str, ...] = ("/void", "/cancel", "/capture", "/auth/refresh", "/auth/password", "/admin/tenants")
ONCE_ONLY += ("/password/reset", "/email/confirm", "/invitations/accept", "/me/email")
ONCE_ONLY += ("/resend", "/second-factor", "/second-factor/confirm", "/recovery-codes", "/remove")
NOT_FOUND = (404, "tenant_not_found")


@pytest.fixture(scope="module")
def world(app: Flask, database: Database) -> World:
    return World(app, database)


def code_of(response: TestResponse) -> str | None:
    return response.json["code"] if response.mimetype == "application/problem+json" else None


def looks(response: TestResponse) -> tuple[int, str, list[tuple[str, str]]]:
    """Everything by which a caller can tell answers apart, without the headers that differ in every answer."""
    ours = {"X-Request-Id", "Date"}
    headers = [(name, value) for name, value in response.headers if name not in ours and "RateLimit" not in name]
    return response.status_code, response.get_data(as_text=True), headers


def test_every_route_there_is_has_a_sample(app: Flask) -> None:
    ignored = {"HEAD", "OPTIONS"}
    routes = {(method, str(rule)) for rule in app.url_map.iter_rules() for method in (rule.methods or set()) - ignored}
    assert {(sample.method, sample.rule) for sample in SAMPLES} == routes


def test_a_route_without_a_sample_would_be_noticed(app: Flask) -> None:
    view: View = app.view_functions["wallets.show_own_wallet"]
    assert view.__dict__["access"]
    assert len(SAMPLES) == len({(sample.method, sample.rule) for sample in SAMPLES})


@OVER_SAMPLES
@OVER_TENANTS
def test_those_who_may_get_in_and_nobody_else(world: World, sample: Sample, slug: str) -> None:
    before = {of: world.all_of(of) for of in TENANTS}
    for role in sorted(ANYONE - sample.who):
        answer = world.send(sample, role, slug)
        assert code_of(answer) in TURNED_AWAY, (role, answer.text)
        assert answer.status_code in {401, 403, 404}, (role, answer.text)
    refusals_only(world, before)
    for role in sorted(sample.who):
        answer = world.send(sample, role, slug)
        assert answer.status_code < 500, (role, answer.text)
        if sample.rule != "/api/auth/refresh":  # The view itself refuses the token of the sample.
            assert code_of(answer) not in TURNED_AWAY, (role, answer.text)


def refusals_only(world: World, before: dict[str, list[Any]]) -> None:
    """Nothing was written except the audit log's entries for refusals, and their counts."""
    for slug, had in before.items():
        changed = [
            index for index, (one, two) in enumerate(zip(had[0], world.all_of(slug)[0], strict=True)) if one != two
        ]
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename"
        names = [name for (name,) in world.eye.execute(tables, (f"{slug}_schema",)).fetchall()]
        written = {names[index] if index < len(names) else f"shared {index - len(names)}" for index in changed}
        assert written <= {"audit_log", "audit_chain", "audit_refusals"}, written


LOOKS = [
    replace(sample, method=method, query=sample.query | dry_run)
    for sample in OF_TENANTS
    if "operator" in sample.who
    for method in ((sample.method, "HEAD", "OPTIONS") if sample.method == "GET" else (sample.method,))
    for dry_run in ({}, {"dryRun": "true"})
]


@pytest.mark.parametrize("sample", LOOKS, ids=lambda sample: f"{sample}{'?dryRun' if 'dryRun' in sample.query else ''}")
def test_each_request_of_an_operator_in_a_tenant_is_one_entry_there(world: World, sample: Sample) -> None:
    """Whatever it does, sees or is refused, also if it is sent again or has a parameter that the route has not."""
    counts = [entries_of_operator(world)]
    for _ in range(2):
        answer = world.send(sample, "operator", "eur")
        assert answer.status_code < 500, answer.text
        counts.append(entries_of_operator(world))
    assert [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(counts)] == [(1, 0)] * 2


def entries_of_operator(world: World) -> list[int]:
    """The number of the operator's entries in each tenant's log."""
    query = "SELECT count(*) FROM {}_schema.audit_log WHERE actor_id = %s"
    operator = (world.operator.user_id,)
    return [world.eye.execute(query.format(slug).encode(), operator).fetchall()[0][0] for slug in TENANTS]


@OVER_SAMPLES
def test_the_sample_is_a_right_request(world: World, sample: Sample) -> None:
    """With an invalid sample the tests here would attack nothing."""
    if sample.method != "GET" and (sample.method == "DELETE" or sample.rule.endswith(ONCE_ONLY)):
        pytest.skip("the feature's own tests cover requests that succeed only once")
    role = "member" if "member" in sample.who else "admin" if "admin" in sample.who else "operator"
    answer = world.send(sample, role, "eur")
    assert answer.status_code < 300, answer.text


@pytest.mark.parametrize("sample", [sample for sample in OF_TENANTS if sample.names_something], ids=str)
@OVER_TENANTS
def test_what_belongs_to_another_tenant_is_as_if_it_were_not(world: World, sample: Sample, slug: str) -> None:
    """The answer shows neither its content nor its existence, and the object is unchanged."""
    before = world.all_of(OTHER[slug])
    for role in sorted(sample.who):
        foreign = world.send(sample, role, slug, things_of=OTHER[slug])
        unknown = world.send(sample, role, slug, things_of="unknown")
        assert 400 <= foreign.status_code < 500, foreign.text
        assert looks(foreign)[:2] == looks(unknown)[:2], "the answer shows whether it exists in another tenant"
    assert world.all_of(OTHER[slug]) == before


@OVER_TENANT_ROUTES
@OVER_TENANTS
def test_somebody_of_another_tenant_is_told_there_is_none(world: World, sample: Sample, slug: str) -> None:
    unknown = looks(world.send(sample, "stranger", slug, headers={"X-Tenant": "nope"}))
    before = world.all_of(slug)
    for role in ("member", "admin", "auditor"):
        token = world.token_of(role, OTHER[slug])
        answer = world.send(sample, "anonymous", slug, headers={"Authorization": f"Bearer {token}"})
        assert looks(answer) == unknown
    assert world.all_of(slug) == before
    assert (unknown[0], "tenant_not_found" in unknown[1]) == (404, True)


@OVER_TENANT_ROUTES
@OVER_TENANTS
def test_a_token_for_another_tenant_opens_nothing_here(
    world: World, app: Flask, database: Database, sample: Sample, slug: str
) -> None:
    """Not even for a member of both tenants; for a caller without membership here, the claim alone is not enough."""
    people = People(app)
    both = people.make(**{slug: "admin", OTHER[slug]: "admin"})
    foreign = database.tenant(OTHER[slug]).id
    claimed = {"Authorization": f"Bearer {people.token(both.user_id, foreign)}"}
    problem_of(world.send(sample, "anonymous", slug, headers=claimed), 400, "tenant_ambiguous")
    person = world.sides[slug].admin
    claimed = {"Authorization": f"Bearer {people.token(person.user_id, foreign)}", "X-Tenant": None}
    problem_of(world.send(sample, "anonymous", slug, headers=claimed), *NOT_FOUND)


@OVER_TENANT_ROUTES
@OVER_TENANTS
def test_ways_of_naming_that_disagree_are_refused(world: World, sample: Sample, slug: str) -> None:
    other = OTHER[slug]
    path = f"/api/{other}/{world.fill(sample.path or sample.rule, slug).removeprefix('/api/')}"
    before = [world.all_of(of) for of in TENANTS]
    role = sorted(sample.who)[0]
    for more in (
        {"path": path},
        {"base_url": f"http://{other}.{BASE_DOMAIN}"},
        {"headers": {"X-Tenant": f"{slug}, {other}"}},
        {"headers": {"X-Tenant": None}, "path": path, "base_url": f"http://{slug}.{BASE_DOMAIN}"},
    ):
        problem_of(world.send(sample, role, slug, **more), 400, "tenant_ambiguous")
    assert [world.all_of(of) for of in TENANTS] == before


TRICKS = (
    *("{}.", ".{}", "{}/", "{}%00", "{}\\", "{};", "{}'--", "{}' OR '1'='1", "{}_schema", "tenant_{}", "{}\u200b"),
    *("{}%2e", "%2e%2e", "..", "{}/../{}", "shared", "public", "pg_catalog", "*", "null", "undefined", "0", "-1"),
    *("x" * 33, "x" * 5000, "\u0435ur", "\uff45\uff55\uff52", "{}$", "$$", "${{}}", "{}@", "{}\t{}"),
)


@OVER_TENANT_ROUTES
@OVER_TENANTS
def test_no_trick_with_a_slug_opens_a_tenant(world: World, tenant_logins: str, sample: Sample, slug: str) -> None:
    """Each route gets each trick once: a fourth of them for each tenant in each login mode."""
    before = [world.all_of(of) for of in TENANTS]
    role = sorted(sample.who)[0]
    fourth = TENANTS.index(slug) + 2 * (tenant_logins == "shared")
    for trick in ("{upper}", "{title}", *TRICKS)[fourth::4]:
        told = trick.replace("{upper}", slug.upper()).replace("{title}", slug.title()).replace("{}", slug)
        raw = told.encode().decode("latin-1")
        for environment in (
            {"HTTP_X_TENANT": raw},
            {"PATH_INFO": f"/api/{raw}/{world.fill(sample.path or sample.rule, slug).removeprefix('/api/')}"},
        ):
            answer = world.send(sample, role, slug, headers={"X-Tenant": None}, environ_overrides=environment)
            assert 400 <= answer.status_code < 500, (told, environment, answer.text)
    assert [world.all_of(of) for of in TENANTS] == before


@pytest.fixture
def gone(world: World, app: Flask) -> dict[str, str]:
    """Tokens of people who were members, admins and auditors of both tenants until just now."""
    people, tokens = People(app), {}
    for role in ("member", "admin", "auditor"):
        person = people.make(eur=role, km=role)
        assert world.api.get("/api/me", person).json["memberships"]
        world.eye.execute("DELETE FROM shared.memberships WHERE user_id = %s", (person.user_id,))
        tokens[role] = person.token
    return tokens


@OVER_TENANTS
def test_a_removed_member_finds_no_tenant_any_more(world: World, gone: dict[str, str], slug: str) -> None:
    before = world.all_of(slug)
    for sample in OF_TENANTS:
        for token in gone.values():
            answer = world.send(sample, "anonymous", slug, headers={"Authorization": f"Bearer {token}"})
            problem_of(answer, *NOT_FOUND)
    assert world.all_of(slug) == before


@pytest.fixture(params=["suspended", "archived"])
def closed(request: pytest.FixtureRequest, world: World) -> Iterator[str]:
    """Both tenants have this status during a test."""
    try:
        world.eye.execute("UPDATE shared.tenants SET status = %s", (request.param,))
        yield request.param
    finally:
        world.eye.execute("UPDATE shared.tenants SET status = 'active'")


@OVER_TENANTS
def test_a_tenant_that_is_not_active_is_as_if_it_were_not(world: World, closed: str, slug: str) -> None:
    """Except for the auditor of an archived tenant, who may read."""
    before = world.all_of(slug)
    for sample in OF_TENANTS:
        unknown = looks(world.send(sample, "stranger", slug, headers={"X-Tenant": "nope"}))
        for role in ROLES:
            answer = world.send(sample, role, slug)
            if closed == "archived" and role == "auditor" and sample.method == "GET" and "auditor" in sample.who:
                assert answer.status_code == 200, answer.text
            else:
                assert looks(answer) == unknown, (sample, role)
    assert world.all_of(slug) == before


@OVER_TENANTS
def test_nobody_finds_another_tenants_members_by_their_id(world: World, slug: str) -> None:
    stranger = world.stranger.user_id
    foreign = world.sides[OTHER[slug]].member.user_id
    answers = []
    for user_id in (stranger, foreign, UUID(int=7)):
        answer = world.api.post("/api/admin/wallets", world.sides[slug].admin, slug, json={"userId": str(user_id)})
        answers.append(looks(answer))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == 404
