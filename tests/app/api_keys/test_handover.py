"""An API key ends with its maker's right: whoever ends that right must choose what becomes of the key."""

from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.app.api_keys.test_routes import KEYS, create, listed, log_of, service_of
from tests.factories.api import Api
from tests.factories.people import People, Person

OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])
OTHER = {"eur": "km", "km": "eur"}


@pytest.fixture
def admin(people: People) -> Person:
    return people.make(eur="admin", km="admin", name="Ada")


@pytest.fixture
def leaver(people: People) -> Person:
    return people.make(eur="admin", km="admin", name="Leo")


def status_of(api: Api, key: Person) -> int:
    return api.get("/api/admin/wallets", key).status_code


def shown(api: Api, admin: Person, slug: str, key: Person) -> dict[str, Any]:
    return next(item for item in listed(api, admin, slug) if item["id"] == str(key.user_id))


def remove(api: Api, admin: Person, slug: str, leaver: Person, choice: str | None) -> TestResponse:
    query = f"?apiKeys={choice}" if choice else ""
    return api.send("DELETE", f"/api/admin/members/{leaver.user_id}{query}", admin, slug)


def demote(api: Api, admin: Person, slug: str, leaver: Person, choice: str | None) -> TestResponse:
    body = {"role": "member"} | ({"apiKeys": choice} if choice else {})
    return api.send("PATCH", f"/api/admin/members/{leaver.user_id}", admin, slug, json=body)


def put_again(api: Api, admin: Person, slug: str, leaver: Person, choice: str | None) -> TestResponse:
    body = {"email": leaver.email, "role": "auditor"} | ({"apiKeys": choice} if choice else {})
    return api.post("/api/admin/members", admin, slug, json=body)


OVER_WAYS = pytest.mark.parametrize("end_right", [remove, demote, put_again])


@OVER_WAYS
def test_valid_keys_are_named_and_a_choice_is_demanded(api: Api, admin: Person, leaver: Person, end_right: Any) -> None:
    key = service_of(api, leaver, "eur")
    revoked = service_of(api, leaver, "eur")
    api.send("DELETE", f"{KEYS}/{revoked.user_id}", leaver, "eur")
    refused = problem_of(end_right(api, admin, "eur", leaver, None), 409, "api_keys_undecided")
    named = {"id": str(key.user_id), "name": "till", "role": "service", "lastUsedAt": None}
    assert refused["apiKeys"] == [named]
    assert status_of(api, key) == 200
    assert api.get("/api/admin/members", leaver, "eur").status_code == 200, "nothing has changed"


@OVER_WAYS
@OVER_TENANTS
def test_keys_are_revoked_with_the_right_in_this_tenant_only(
    api: Api, admin: Person, leaver: Person, slug: str, end_right: Any
) -> None:
    key, other = service_of(api, leaver, slug), service_of(api, leaver, OTHER[slug])
    assert end_right(api, admin, slug, leaver, "revoke").status_code < 300
    assert (status_of(api, key), status_of(api, other)) == (401, 200)
    assert shown(api, admin, slug, key)["revokedAt"]
    entry = log_of(api, admin, slug, "api_key.revoke")[0]
    assert (entry["subject"], entry["actorId"]) == (str(key.user_id), str(admin.user_id))


@OVER_WAYS
def test_kept_keys_depend_on_who_decided_and_still_say_who_made_them(
    api: Api, people: People, admin: Person, leaver: Person, end_right: Any
) -> None:
    key = service_of(api, leaver, "eur")
    assert end_right(api, admin, "eur", leaver, "keep").status_code < 300
    assert status_of(api, key) == 200
    found = shown(api, admin, "eur", key)
    made, kept = (str(leaver.user_id), "Leo"), (str(admin.user_id), "Ada")
    assert (found["creatorId"], found["creatorName"]) == made
    assert (found["keeperId"], found["keeperName"]) == kept
    entry = log_of(api, admin, "eur", "api_key.keep")[0]
    assert entry["subject"] == str(key.user_id)
    assert (entry["before"]["keeperId"], entry["after"]["keeperId"]) == (str(leaver.user_id), str(admin.user_id))
    last = people.make(eur="admin")
    problem_of(remove(api, last, "eur", admin, None), 409, "api_keys_undecided")
    assert remove(api, last, "eur", admin, "revoke").status_code == 204
    assert status_of(api, key) == 401


def test_a_promotion_and_a_removal_without_keys_need_no_choice(api: Api, people: People, admin: Person) -> None:
    member = people.make(eur="member")
    path = f"/api/admin/members/{member.user_id}"
    for role in ("admin", "member"):
        assert api.send("PATCH", path, admin, "eur", json={"role": role}).status_code == 200
    assert remove(api, admin, "eur", member, None).status_code == 204


@pytest.mark.parametrize("change", ["users SET status = 'disabled'", "memberships SET role = 'member'"])
def test_a_key_ends_also_if_nobody_decided(api: Api, leaver: Person, database: Database, change: str) -> None:
    """A disabled user, or SQL by hand."""
    key = service_of(api, leaver, "eur")
    column = "id" if change.startswith("users") else "user_id"
    with database.as_superuser() as superuser:
        superuser.execute(f"UPDATE shared.{change} WHERE {column} = %s".encode(), (leaver.user_id,))
    assert status_of(api, key) == 401


def test_an_operators_key_needs_no_membership_and_shows_no_name(api: Api, people: People, admin: Person) -> None:
    operator = people.make(is_operator=True, name="Olga")
    key = service_of(api, operator, "eur")
    assert status_of(api, key) == 200
    assert shown(api, admin, "eur", key)["creatorName"] == "operator"


@OVER_WAYS
def test_an_operators_membership_ends_without_a_choice(api: Api, people: People, admin: Person, end_right: Any) -> None:
    """The key does not depend on it. Who does choose is obeyed."""
    operator = people.make(eur="admin", is_operator=True)
    key = service_of(api, operator, "eur")
    assert end_right(api, admin, "eur", operator, None).status_code < 300
    assert status_of(api, key) == 200
    assert shown(api, admin, "eur", key)["revokedAt"] is None
    put_again(api, admin, "eur", operator, None)
    assert remove(api, admin, "eur", operator, "revoke").status_code == 204
    assert status_of(api, key) == 401


def command(app: Flask, email: str, *options: str) -> tuple[int, str]:
    done = app.test_cli_runner().invoke(args=["members", "add", email, "--tenant", "eur", *options])
    return done.exit_code, done.output


def test_the_command_line_demands_the_choice_too(
    app: Flask, api: Api, people: People, admin: Person, leaver: Person
) -> None:
    key = service_of(api, leaver, "eur")
    code, said = command(app, leaver.email)
    assert (code, "API keys depend on this member's right" in said) == (1, True)
    for email in (people.make(km="admin").email, leaver.email):
        code, said = command(app, leaver.email, "--api-keys", email)
        assert (code, "is no other admin of eur" in said) == (1, True)
    assert status_of(api, key) == 200
    assert command(app, leaver.email, "--api-keys", admin.email)[0] == 0
    assert status_of(api, key) == 200
    assert shown(api, admin, "eur", key)["keeperId"] == str(admin.user_id)
    people.make(eur="admin")
    assert command(app, admin.email, "--api-keys", "revoke")[0] == 0
    assert status_of(api, key) == 401


@pytest.mark.parametrize("is_operator", [False, True])
def test_a_key_that_is_made_while_its_maker_is_removed_is_refused(
    api: Api, people: People, admin: Person, database: Database, is_operator: bool
) -> None:
    """Or the key would escape the choice."""
    maker = people.make(is_operator=True) if is_operator else people.make(eur="admin")
    end = "UPDATE shared.users SET is_operator = false WHERE id = %s"
    if not is_operator:
        end = "DELETE FROM shared.memberships WHERE user_id = %s"
    with ThreadPoolExecutor(1) as pool:
        with database.as_superuser() as remover, remover.transaction():
            remover.execute("SELECT FROM shared.tenants WHERE slug = 'eur' FOR NO KEY UPDATE")
            remover.execute(end, (maker.user_id,))
            making = pool.submit(create, api, maker, "eur", name="escaped")
            waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
            while not making.done() and remover.execute(waits).fetchone() == (False,):
                sleep(0.01)
            assert not making.done(), "it waits for the removal"
        problem_of(making.result(), 403, "admin_required")
    assert all(key["name"] != "escaped" for key in listed(api, admin, "eur"))


def test_a_former_makers_name_is_as_the_tenant_knew_it_and_then_forgotten(
    app: Flask, api: Api, admin: Person, leaver: Person, database: Database
) -> None:
    key = service_of(api, leaver, "eur")
    assert remove(api, admin, "eur", leaver, "keep").status_code == 204
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET name = 'Leonora' WHERE id = %s", (leaver.user_id,))
    assert shown(api, admin, "eur", key)["creatorName"] == "Leo"
    forget = ["members", "forget-former", "--tenant", "eur", "--user", str(leaver.user_id)]
    assert app.test_cli_runner().invoke(args=forget).exit_code == 0
    found = shown(api, admin, "eur", key)
    assert (found["creatorId"], found["creatorName"], found["keeperName"]) == (
        str(leaver.user_id),
        "no longer known",
        "Ada",
    )
