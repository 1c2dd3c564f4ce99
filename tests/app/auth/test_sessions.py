"""Sessions: a refresh token is used once, and a session ends by log-out, new password or token theft. The tests of the
overlap are in `test_sessions_overlap.py`, those of log-out in `test_logout.py`.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import create_app
from app.auth import sessions
from app.auth.errors import BadCredentials
from app.auth.passwords import hash_password
from app.auth.refresh_tokens import hash_of
from app.auth.sessions import start_session
from app.auth.tokens import TokenMint
from tenant_schemas.flask import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.conftest import settings_for
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.browser import PASSWORD
from tests.factories.people import People, Person

NEW_PASSWORD = "another horse, another battery"
OVER_TENANTS = pytest.mark.parametrize("slug", ["eur", "km"])


@pytest.fixture
def person(people: People) -> Person:
    return people.make(password_hash=hash_password(PASSWORD), eur="member", km="admin")


def login(api: Api, person: Person, tenant: str | None = None, password: str = PASSWORD) -> Any:
    response = api.send("POST", "/api/auth/login", tenant=tenant, json={"email": person.email, "password": password})
    assert response.status_code == 200, response.text
    return response.json


def refresh(api: Api, token: str, path: str = "/api/auth/refresh") -> TestResponse:
    return api.send("POST", path, json={"refreshToken": token})


def me(api: Api, tokens: Any) -> TestResponse:
    return api.get("/api/me", headers=bearer(tokens))


def bearer(tokens: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['accessToken']}"}


def is_out(api: Api, tokens: Any) -> None:
    """Neither its access token nor its refresh token works."""
    problem_of(me(api, tokens), 401, "session_over")
    problem_of(api.get("/api/wallet", tenant="eur", headers=bearer(tokens)), 401, "session_over")
    problem_of(refresh(api, tokens["refreshToken"]), 401, "session_over")


def reasons_of(database: Database, person: Person) -> set[str | None]:
    query = "SELECT end_reason FROM shared.sessions WHERE user_id = %s"
    return {reason for (reason,) in database.as_superuser().execute(query, (person.user_id,)).fetchall()}


# --- going on ------------------------------------------------------------------------------------------------------


def test_a_refresh_gives_new_tokens_of_the_same_session(api: Api, app: Flask, person: Person) -> None:
    first = login(api, person)
    response = refresh(api, first["refreshToken"])
    second = response.json
    assert set(second) == {"accessToken", "refreshToken", "tokenType", "expiresIn", "refreshExpiresIn"}
    assert second["refreshToken"] != first["refreshToken"]
    assert second["refreshExpiresIn"] <= first["refreshExpiresIn"], "a session does not grow"
    mint: TokenMint = app.extensions["token_mint"]
    seen = {mint.check(tokens["accessToken"]).session_id for tokens in (first, second)}
    assert len(seen) == 1
    assert me(api, second).json["id"] == str(person.user_id)
    assert me(api, first).status_code == 200, "an access token lives on beside a newer one"
    assert refresh(api, second["refreshToken"]).status_code == 200


@OVER_TENANTS
@pytest.mark.parametrize("path", ["/api/auth/refresh", "/api/eur/auth/refresh", "/api/km/auth/refresh"])
def test_a_refresh_keeps_the_tenant_whatever_it_names(
    app: Flask, person: Person, database: Database, slug: str, path: str
) -> None:
    api, mint = Api(app), app.extensions["token_mint"]
    tokens = refresh(api, login(api, person, slug)["refreshToken"], path).json
    assert mint.check(tokens["accessToken"]).claims["tenant"] == str(database.tenant(slug).id)
    assert api.get("/api/wallet", headers=bearer(tokens)).json["tenantId"] == slug


def test_only_a_hash_of_a_refresh_token_is_kept(api: Api, person: Person, database: Database) -> None:
    token = login(api, person)["refreshToken"]
    session, secret, _ = token.split(".")
    assert len(secret) == 43, "256 bits"
    query = "SELECT t::text FROM shared.refresh_tokens t WHERE session_id = %s"
    ((row,),) = database.as_superuser().execute(query, (UUID(session),)).fetchall()
    assert secret not in row
    assert secret.encode().hex() not in row


@pytest.mark.parametrize("token", ["x", "é", "'; DROP TABLE sessions", ".", f".{ID_OF_NOTHING.hex}"])
def test_what_is_no_refresh_token_is_refused(api: Api, token: str) -> None:
    problem_of(refresh(api, token), 401, "token_invalid")


UNKNOWN = [str(ID_OF_NOTHING), f"{ID_OF_NOTHING.hex}.x", f"{ID_OF_NOTHING.hex}.{'x' * 43}.{'x' * 22}"]


@pytest.mark.parametrize("token", UNKNOWN)
def test_a_refresh_token_that_is_unknown_is_told_to_log_in(api: Api, token: str) -> None:
    problem_of(refresh(api, token), 401, "session_over")


@pytest.mark.parametrize("sent", [{}, {"json": {}}])
def test_a_refresh_without_a_token_is_no_invalid_request(api: Api, sent: dict[str, Any]) -> None:
    response = api.send("POST", "/api/auth/refresh", **sent)
    problem_of(response, 401, "token_missing")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_the_secret_of_one_session_opens_no_other(api: Api, person: Person, people: People) -> None:
    mine, theirs = login(api, person)["refreshToken"], login(api, person)["refreshToken"]
    problem_of(refresh(api, f"{theirs.partition('.')[0]}.{mine.partition('.')[2]}"), 401, "session_over")
    assert refresh(api, mine).status_code == refresh(api, theirs).status_code == 200


def test_an_access_token_and_a_refresh_token_are_not_for_each_others_doors(api: Api, person: Person) -> None:
    tokens = login(api, person)
    problem_of(me(api, {"accessToken": tokens["refreshToken"]}), 401, "token_invalid")
    problem_of(refresh(api, tokens["accessToken"][:200]), 401, "token_invalid")


@OVER_TENANTS
def test_a_used_refresh_token_ends_its_session_and_no_other(
    api: Api, person: Person, database: Database, slug: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stolen, other = login(api, person, slug), login(api, person)
    thiefs = refresh(api, stolen["refreshToken"]).json
    use_ago(database, stolen["refreshToken"], "31 seconds")
    problem_of(refresh(api, stolen["refreshToken"]), 401, "session_over")
    is_out(api, thiefs)
    assert me(api, other).status_code == 200
    assert reasons_of(database, person) == {"reuse", None}
    logged = capsys.readouterr().out
    assert '"refresh_token_reused"' in logged
    assert stolen["refreshToken"].partition(".")[2] not in logged


def use_ago(database: Database, token: str, ago: str) -> None:
    """As if the token had been used so long ago."""
    query = "UPDATE shared.refresh_tokens SET used_at = now() - %s::interval WHERE token_hash = %s"
    database.as_superuser().execute(query, (ago, hash_of(token)))


def test_a_refusal_does_not_say_why(api: Api, person: Person, database: Database) -> None:
    used, over = login(api, person)["refreshToken"], login(api, person)["refreshToken"]
    refresh(api, used)
    use_ago(database, used, "1 hour")
    set_expiry(database, over)
    answers = {refresh(api, token).data for token in (used, over, f"{uuid4().hex}.{'x' * 43}")}
    assert len(answers) == 1


def set_expiry(database: Database, token: str, interval: str = "-1 second") -> None:
    query = "UPDATE shared.sessions SET expires_at = now() + %s::interval WHERE id = %s"
    database.as_superuser().execute(query, (interval, UUID(token.partition(".")[0])))


def test_an_access_token_does_not_outlive_its_session(api: Api, app: Flask, person: Person, database: Database) -> None:
    tokens = login(api, person)
    set_expiry(database, tokens["refreshToken"], "10 seconds")
    told = refresh(api, tokens["refreshToken"]).json
    assert 0 < told["expiresIn"] <= 10
    assert told["refreshExpiresIn"] <= 10
    mint: TokenMint = app.extensions["token_mint"]
    claims = mint.check(told["accessToken"]).claims
    assert claims["exp"] - claims["iat"] == told["expiresIn"]


def test_a_session_ends_when_its_time_is_over(api: Api, person: Person, database: Database) -> None:
    token = login(api, person)["refreshToken"]
    set_expiry(database, token)
    problem_of(refresh(api, token), 401, "session_over")
    assert reasons_of(database, person) == {None}, "it was not used, so it was not stolen"


@pytest.fixture
def short_lived(database: Database) -> Iterator[Flask]:
    app = create_app(settings_for(database, refresh_seconds=60))
    yield app
    app.extensions[EXTENSION].close()


def test_how_long_a_session_lasts_is_a_setting(short_lived: Flask, person: Person) -> None:
    told = login(Api(short_lived), person)
    assert (told["expiresIn"], told["refreshExpiresIn"]) == (60, 60)


def test_a_disabled_user_gets_no_new_token_and_the_old_ones_are_dead(
    api: Api, person: Person, database: Database
) -> None:
    tokens = login(api, person)
    database.as_superuser().execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (person.user_id,))
    is_out(api, tokens)
    database.as_superuser().execute("UPDATE shared.users SET status = 'active' WHERE id = %s", (person.user_id,))
    assert refresh(api, tokens["refreshToken"]).status_code == 200, "it had not been used"


# --- a new password ------------------------------------------------------------------------------------------------


def change(api: Api, tokens: Any, current: str = PASSWORD, new: str = NEW_PASSWORD) -> TestResponse:
    body = {"currentPassword": current, "newPassword": new}
    return api.send("POST", "/api/auth/password", headers=bearer(tokens), json=body)


def test_a_new_password_ends_all_other_sessions(api: Api, person: Person, people: People, database: Database) -> None:
    stranger = people.make(password_hash=hash_password(PASSWORD), eur="member")
    mine, others, strangers = login(api, person), [login(api, person), login(api, person, "km")], login(api, stranger)
    assert change(api, mine).status_code == 200
    for tokens in others:
        is_out(api, tokens)
    assert refresh(api, mine["refreshToken"]).status_code == 200
    assert me(api, mine).status_code == me(api, strangers).status_code == 200
    assert "password" in reasons_of(database, person)
    body = {"email": person.email, "password": PASSWORD}
    problem_of(api.send("POST", "/api/auth/login", json=body), 401, "bad_credentials")
    assert login(api, person, password=NEW_PASSWORD)


def test_with_a_wrong_current_password_nothing_changes(api: Api, person: Person) -> None:
    """403, not 401: the access token is valid and needs no refresh."""
    mine, other = login(api, person), login(api, person)
    problem_of(change(api, mine, current=PASSWORD + "x"), 403, "wrong_password")
    assert me(api, other).status_code == 200
    assert login(api, person)


def test_who_has_no_password_can_not_change_it(api: Api, people: People) -> None:
    person = people.make(eur="member")
    problem_of(change(api, {"accessToken": person.token}, current="!"), 409, "no_password")


@pytest.mark.parametrize(
    ("password", "status"), [("x" * 11, 422), ("x" * 12, 200), ("x" * 1024, 200), ("x" * 1025, 422)]
)
def test_a_password_is_long_and_that_is_all(api: Api, person: Person, password: str, status: int) -> None:
    assert change(api, login(api, person), new=password).status_code == status


def test_a_log_in_with_the_old_password_that_is_slower_than_its_change_fails(
    app: Flask, api: Api, person: Person, database: Database
) -> None:
    """Its password check ran before the change."""
    query = "SELECT password_hash FROM shared.users WHERE id = %s"
    ((old,),) = database.as_superuser().execute(query, (person.user_id,)).fetchall()
    assert change(api, login(api, person)).status_code == 200
    with app.app_context(), pytest.raises(BadCredentials):
        start_session(person.user_id, old, None, 60)


def test_a_log_in_waits_for_a_change_of_the_password_that_is_on_its_way(
    app: Flask, person: Person, database: Database
) -> None:
    changing = database.as_superuser()
    ((old,),) = changing.execute("SELECT password_hash FROM shared.users WHERE id = %s", (person.user_id,)).fetchall()
    changing.execute("BEGIN")
    changing.execute("UPDATE shared.users SET password_hash = 'x' WHERE id = %s", (person.user_id,))

    def attempt() -> Any:
        with app.app_context():
            return start_session(person.user_id, old, None, 60)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(attempt)
        _wait_for_a_lock(database, job)
        changing.execute("COMMIT")
        assert isinstance(job.exception(), BadCredentials)


def _wait_for_a_lock(database: Database, job: Future[Any]) -> None:
    watching = database.as_superuser()
    query = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FOR SHARE%'"""
    while watching.execute(query).fetchone() == (0,):
        assert not job.done(), "it did not wait"


# --- housekeeping --------------------------------------------------------------------------------------------------


def test_pruning_deletes_what_was_over_long_ago_with_its_refresh_tokens(
    fresh_app: Flask, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PRUNED_AT_ONCE", 2)
    api, people = Api(fresh_app), People(fresh_app)
    person = people.make(password_hash=hash_password(PASSWORD), eur="member")
    tokens = [login(api, person)["refreshToken"] for _ in range(5)]
    for token, expiry in zip(tokens, ["1 day", "-6 days", "-8 days", "-9 days", "-10 days"], strict=True):
        set_expiry(fresh_database, token, expiry)
    said = fresh_app.test_cli_runner().invoke(args=["auth", "prune", "--days", "7"])
    assert (said.exit_code, said.output) == (0, "3 sessions and 0 mails deleted\n")
    superuser = fresh_database.as_superuser()
    left = superuser.execute("SELECT session_id FROM shared.refresh_tokens").fetchall()
    assert {session.hex for (session,) in left} == {token.partition(".")[0] for token in tokens[:2]}
    assert fresh_app.test_cli_runner().invoke(args=["auth", "prune"]).output == "0 sessions and 0 mails deleted\n"
