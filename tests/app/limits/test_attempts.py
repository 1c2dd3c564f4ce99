"""Guessing a password is bounded by address, by account at an address and by account, and holds up nobody's own device.
Refreshes count for their session.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from app.auth import devices, sessions
from app.auth.passwords import hash_password
from app.auth.refresh_tokens import new_token
from app.limits import rate_limit
from tenant_schemas.testing.plugin import Database
from tests.app.limits.conftest import Make, World
from tests.app.limits.test_rate_limit import said
from tests.factories.application import running
from tests.factories.mail import Mailbox
from tests.factories.people import Person

STRANGER, OWNER, OTHER = "192.0.2.1", "198.51.100.1", "203.0.113.1"


def owner_in(world: World) -> Person:
    return world.people.make(password_hash=hash_password("right"), eur="member")


def send(world: World, path: str, address: str = OWNER, **body: Any) -> Any:
    return world.api.post(f"/api/auth/{path}", json=body, environ_base={"REMOTE_ADDR": address})


def log_in(world: World, email: str, password: str = "right", address: str = OWNER, **more: Any) -> Any:
    return send(world, "login", address, email=email, password=password, **more)


def statuses(world: World, email: str, passwords: list[str], address: str = OWNER, **more: Any) -> list[int]:
    return [log_in(world, email, password, address, **more).status_code for password in passwords]


# --- strangers who guess -------------------------------------------------------------------------------------------


def test_an_address_may_try_so_many_log_ins_whoever_it_tries_to_be(make: Make) -> None:
    world = make(login_rate_limit="3/minute", login_failure_limit="9/day", account_failure_limit="9/day")
    person = owner_in(world)
    answers = [log_in(world, f"{number}@example.com", address=STRANGER) for number in range(3)]
    assert [(answer.status_code, said(answer)) for answer in answers] == [(401, ("3", left)) for left in "210"]
    policy = '"address";q=3;w=60, "account-address";q=9;w=86400'
    assert answers[0].headers["RateLimit-Policy"] == policy
    refused = log_in(world, person.email, address=STRANGER)
    assert (refused.status_code, refused.json["code"], said(refused)) == (429, "rate_limited", ("3", "0"))
    assert int(refused.headers["Retry-After"]) >= 1
    assert log_in(world, person.email).status_code == 200


def test_a_stranger_at_one_address_locks_that_address_out_of_the_account_and_no_other(make: Make) -> None:
    """Also not by day-long guessing: what is refused at the address does not count for the account."""
    world = make(login_failure_limit="3/day", account_failure_limit="6/day")
    person = owner_in(world)
    assert statuses(world, person.email, ["wrong"] * 20, STRANGER) == [401] * 3 + [429] * 17
    refused = log_in(world, person.email, "right", STRANGER)
    assert refused.headers["RateLimit-Policy"].split(", ")[1:] == ['"account-address";q=3;w=86400']
    assert log_in(world, person.email).status_code == 200, "also on a device that nobody knows"


def test_guessing_from_many_addresses_is_bounded_and_holds_up_no_device_that_was_here_before(make: Make) -> None:
    world = make(login_failure_limit="3/day", account_failure_limit="10/day")
    person = owner_in(world)
    device = log_in(world, person.email).json["deviceToken"]
    guesses = [statuses(world, person.email, ["wrong"] * 3, f"192.0.2.{number}") for number in range(6)]
    assert [status for each in guesses for status in each].count(401) == 10
    assert log_in(world, person.email, address=OTHER).status_code == 429
    for _ in range(20):
        assert log_in(world, person.email, deviceToken=device).status_code == 200


def test_a_failed_log_in_tells_nothing_of_the_failures_at_other_addresses(make: Make) -> None:
    """Or a stranger would see whether the owner, or another stranger, fails too. A refusal tells when it ends."""
    world = make(login_failure_limit="3/day", account_failure_limit="3/day", mail_rate_limit="3/day")
    person = owner_in(world)

    def look(path: str, **body: Any) -> list[str | None]:
        answer = send(world, path, OTHER, email=person.email, **body)
        return [answer.headers.get(name) for name in ("RateLimit", "RateLimit-Remaining", "RateLimit-Policy")]

    fresh = look("login", password="wrong")
    statuses(world, person.email, ["wrong"])
    again = look("login", password="wrong")
    assert [text.count('"account"') for text in (*fresh, *again) if text] == [0] * 6
    assert again[1] == "1", "its own failures at this address"
    refused = log_in(world, person.email, "wrong", STRANGER)
    assert refused.status_code == 429
    assert '"account";q=3;w=86400' in refused.headers["RateLimit-Policy"]
    assert '"mail"' not in str(look("password/forgotten"))


def test_unknown_accounts_are_refused_alike(make: Make) -> None:
    world = make(login_failure_limit="2/day", account_failure_limit="3/day")
    person = owner_in(world)
    looks = []
    for email in (person.email, "unknown@example.com"):
        spellings = (email, email.upper(), f" {email}", email, email)
        answers = [log_in(world, spelled, "wrong", f"192.0.2.{n // 2}") for n, spelled in enumerate(spellings)]
        policies = [answer.headers["RateLimit-Policy"] for answer in answers]
        looks.append([(answer.status_code, answer.json["code"], said(answer)) for answer in answers] + policies)
    assert looks[0] == looks[1]
    assert [look[0] for look in looks[0][:5]] == [401, 401, 401, 429, 429]


def test_what_succeeds_is_no_failure_however_often(make: Make) -> None:
    world = make(login_failure_limit="2/day", account_failure_limit="2/day")
    person = owner_in(world)
    answer = log_in(world, person.email)
    assert '"account' not in answer.headers.get("RateLimit-Policy", "")
    assert statuses(world, person.email, ["right"] * 5 + ["wrong"] * 2 + ["right"]) == [200] * 5 + [401] * 2 + [429]


# --- the device that logged in before ------------------------------------------------------------------------------


def test_a_known_device_is_bounded_by_its_own_counts(make: Make) -> None:
    world = make(login_failure_limit="2/day", account_failure_limit="2/day", login_rate_limit="8/minute")
    person = owner_in(world)
    device = log_in(world, person.email).json["deviceToken"]
    answer = log_in(world, person.email, "wrong", deviceToken=device)
    assert answer.headers["RateLimit-Policy"] == '"device";q=8;w=60, "device-failures";q=2;w=86400, "user";q=8;w=60'
    assert statuses(world, person.email, ["wrong", "right"], deviceToken=device) == [401, 429]
    assert log_in(world, person.email, address=OTHER).status_code == 200, "its failures are not the account's"


def test_a_flood_from_its_own_address_does_not_hold_up_a_known_device(make: Make) -> None:
    world = make(login_rate_limit="2/minute")
    person = owner_in(world)
    device = log_in(world, person.email).json["deviceToken"]
    for number in range(4):
        log_in(world, f"{number}@example.com", "wrong")
    assert log_in(world, person.email).status_code == 429
    assert log_in(world, person.email, deviceToken=device).status_code == 200


def devices_of(world: World, person: Person, count: int) -> list[str]:
    """Each log-in of a client without a device token makes a device."""
    answers = [log_in(world, person.email, address=f"192.0.2.{number}") for number in range(count)]
    return [answer.json["deviceToken"] for answer in answers]


def without_cookies(world: World, email: str, password: str, device: str) -> Any:
    body = {"email": email, "password": password, "deviceToken": device}
    return world.app.test_client(use_cookies=False).post("/api/auth/login", json=body)


def test_the_devices_of_a_user_share_a_rate_which_no_other_user_notices(make: Make) -> None:
    world = make(login_rate_limit="4/minute")
    person, other = owner_in(world), owner_in(world)
    devices, (of_other,) = devices_of(world, person, 6), devices_of(world, other, 1)
    answers = [without_cookies(world, person.email, "right", device) for device in devices]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    assert '"user";q=4;w=60' in answers[-1].headers["RateLimit-Policy"]
    assert without_cookies(world, other.email, "right", of_other).status_code == 200


def test_the_failures_of_one_device_do_not_use_up_the_rate_of_its_user(make: Make) -> None:
    """Who has stolen the token of a device, and no password, holds up that device alone."""
    world = make(login_rate_limit="4/minute", login_failure_limit="2/day")
    person = owner_in(world)
    stolen, own = devices_of(world, person, 2)
    tried = [without_cookies(world, person.email, "wrong", stolen).status_code for _ in range(6)]
    assert tried == [401] * 2 + [429] * 4
    assert without_cookies(world, person.email, "right", own).status_code == 200


def test_a_genuine_token_is_counted_before_the_database_is_asked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(login_rate_limit="2/minute")
    (device,) = devices_of(world, owner_in(world), 1)
    asked: list[str] = []
    monkeypatch.setattr(devices, "credentials", asked.append)
    answers = [without_cookies(world, f"{number}@example.com", "wrong", device) for number in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 429, 429]
    assert asked == ["0@example.com", "1@example.com"]


def test_the_token_of_a_device_is_for_its_own_user_and_password_only(make: Make) -> None:
    world = make(login_failure_limit="1/day", account_failure_limit="1/day")
    person, other = owner_in(world), owner_in(world)
    device = log_in(world, person.email).json["deviceToken"]
    others = log_in(world, other.email).json["deviceToken"]
    log_in(world, person.email, "wrong", STRANGER)
    for wrong in (others, "x", device[:-1], device[::-1], "é"):
        assert log_in(world, person.email, deviceToken=wrong).status_code == 429, wrong
    assert log_in(world, person.email, deviceToken=device).status_code == 200
    new_hash = hash_password("another")
    with world.database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET password_hash = %s WHERE id = %s", (new_hash, person.user_id))
    assert log_in(world, person.email, "another", deviceToken=device).status_code == 429, "the password has changed"


# --- a change of the password --------------------------------------------------------------------------------------


def test_a_change_of_the_password_has_a_count_that_no_log_in_touches(make: Make) -> None:
    world = make(login_failure_limit="2/day", account_failure_limit="2/day")
    person = owner_in(world)
    tokens = log_in(world, person.email).json
    for name in (str(person.user_id), person.user_id.hex, tokens["refreshToken"].partition(".")[0]):
        assert statuses(world, name, ["wrong"] * 3, STRANGER) == [401, 401, 429]

    def change(current: str, new: str = "a new password of mine") -> int:
        headers = {"Authorization": f"Bearer {tokens['accessToken']}"}
        body = {"currentPassword": current, "newPassword": new}
        return int(world.api.post("/api/auth/password", json=body, headers=headers).status_code)

    assert [change("wrong"), change("right"), change("wrong"), change("a new password of mine")] == [403, 200, 403, 429]
    assert log_in(world, person.email, "a new password of mine").status_code == 200


# --- a forgotten password ------------------------------------------------------------------------------------------

NEW = "a new password of mine"


def guessed(make: Make, **more: Any) -> tuple[World, Person]:
    """An account that strangers have locked, also at its owner's address."""
    world = make(login_failure_limit="2/day", account_failure_limit="3/day", **more)
    person = owner_in(world)
    assert statuses(world, person.email, ["wrong"] * 3) == [401, 401, 429]
    assert statuses(world, person.email, ["wrong"] * 2, STRANGER) == [401, 429]
    return world, person


def reset(world: World, person: Person) -> Any:
    send(world, "password/forgotten", email=person.email)
    return send(world, "password/reset", token=Mailbox(world.app).token(person.email), newPassword=NEW)


def test_after_a_reset_the_owner_comes_in_while_strangers_go_on_guessing(make: Make) -> None:
    world, person = guessed(make)
    assert log_in(world, person.email).status_code == 429
    answer = reset(world, person)
    assert answer.status_code == 200
    without_cookies = world.app.test_client(use_cookies=False)

    def unknown(password: str, address: str) -> int:
        body = {"email": person.email, "password": password}
        place = {"REMOTE_ADDR": address}
        return without_cookies.post("/api/auth/login", json=body, environ_base=place).status_code

    assert unknown(NEW, OWNER) == 200, "its failures are forgotten, at this address too"
    assert [unknown("wrong", f"192.0.2.{number}") for number in range(5)] == [401] * 3 + [429] * 2
    assert unknown(NEW, OWNER) == 429, "as a device that nobody knows"
    assert log_in(world, person.email, NEW).status_code == 200, "with the cookie"
    assert log_in(world, person.email, NEW, deviceToken=answer.json["deviceToken"]).status_code == 200


def test_a_browser_keeps_the_token_of_a_reset_in_its_cookie(make: Make) -> None:
    world, person = guessed(make)
    kept = reset(world, person)
    assert f"__Secure-device={kept.json['deviceToken']}" in str(kept.headers.getlist("Set-Cookie"))


def test_a_change_of_the_password_gives_the_device_a_new_token(make: Make) -> None:
    world = make(login_failure_limit="1/day", account_failure_limit="1/day")
    person = owner_in(world)
    headers = {"Authorization": f"Bearer {log_in(world, person.email).json['accessToken']}"}
    body = {"currentPassword": "right", "newPassword": NEW}
    changed = world.api.post("/api/auth/password", json=body, headers=headers)
    assert statuses(world, person.email, ["wrong", NEW], STRANGER) == [401, 429]
    assert log_in(world, person.email, NEW, deviceToken=changed.json["deviceToken"]).status_code == 200


# --- refreshes -----------------------------------------------------------------------------------------------------


def test_refreshes_count_for_their_session_and_not_for_the_address(make: Make) -> None:
    world = make(refresh_rate_limit="2/minute", login_rate_limit="9/minute")
    person = owner_in(world)
    one, other = (log_in(world, person.email).json["refreshToken"] for _ in range(2))
    answers = []
    for _ in range(3):
        answers.append(send(world, "refresh", refreshToken=one))
        one = (answers[-1].json or {}).get("refreshToken", one)
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"session";q=2;w=60'
    for _ in range(2):
        answer = send(world, "refresh", refreshToken=other)
        other = answer.json["refreshToken"]
    assert send(world, "refresh", refreshToken=other).status_code == 429


def test_a_thief_who_uses_up_the_refreshes_does_not_hide_the_reuse(make: Make) -> None:
    world = make(refresh_rate_limit="2/minute", refresh_overlap_seconds=0)
    person = owner_in(world)
    tokens = log_in(world, person.email).json
    first = tokens["refreshToken"]
    second = send(world, "refresh", refreshToken=first).json["refreshToken"]
    third = send(world, "refresh", refreshToken=second).json["refreshToken"]
    assert send(world, "refresh", refreshToken=third).status_code == 429
    access = {"Authorization": f"Bearer {tokens['accessToken']}"}
    assert world.api.get("/api/me", headers=access).status_code == 200, "an unused token is no reuse"
    assert send(world, "refresh", refreshToken=first).status_code == 429
    assert world.api.get("/api/me", headers=access).json["code"] == "session_over"


def test_who_knows_the_id_of_a_session_can_not_use_up_its_refreshes(make: Make) -> None:
    """It counts for the stranger's address, and so does all that this service never made."""
    world = make(refresh_rate_limit="1/minute", login_rate_limit="4/minute")
    token = log_in(world, owner_in(world).email).json["refreshToken"]
    session, _, tag = token.split(".")
    with world.app.app_context():
        others = new_token(uuid4())
    forged = [
        f"{session}.{'x' * 43}.{tag}",
        f"{session}.{others.partition('.')[2]}",
        f"{session}.x",
        f"{uuid4().hex}.x.x",
    ]
    answers = [
        send(world, "refresh", STRANGER, refreshToken=text) for text in [*forged, others.replace("-", "_") + "x"]
    ]
    assert [answer.status_code for answer in answers] == [401] * 4 + [429]
    assert re.match(r'"refresh-address";q=4;w=60$', answers[0].headers["RateLimit-Policy"])
    assert send(world, "refresh", refreshToken=token).status_code == 200


def test_a_refresh_token_of_an_earlier_release_counts_for_its_address_and_works(make: Make) -> None:
    world = make(refresh_rate_limit="1/minute", login_rate_limit="2/minute")
    token = log_in(world, owner_in(world).email).json["refreshToken"].rpartition(".")[0]
    assert send(world, "refresh", refreshToken=token).status_code == 200


def test_a_log_out_is_never_refused_for_its_session_and_asks_the_database_so_often(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make(refresh_rate_limit="2/minute")
    tokens = log_in(world, owner_in(world).email).json
    token, access = tokens["refreshToken"], {"Authorization": f"Bearer {tokens['accessToken']}"}
    assert [send(world, "refresh", refreshToken=token).status_code for _ in range(3)] == [200, 200, 429]
    ended: list[str] = []
    end = sessions.end_session_of
    monkeypatch.setattr(sessions, "end_session_of", lambda token: ended.append(token) or end(token))
    for _ in range(4):
        answer = send(world, "logout", refreshToken=token)
        assert (answer.status_code, "RateLimit" in answer.headers, "Retry-After" in answer.headers) == (
            204,
            False,
            False,
        )
    assert ended == [token] * 2
    assert world.api.post("/api/auth/logout", headers=access).status_code == 204
    assert world.api.get("/api/me", headers=access).json["code"] == "session_over"


def test_a_log_out_that_fails_counts_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(refresh_rate_limit="1/minute")
    access = {"Authorization": f"Bearer {log_in(world, owner_in(world).email).json['accessToken']}"}
    with monkeypatch.context() as broken:
        broken.setattr(sessions, "_LOG_OUT_BY_ID", "SELECT 1/0")
        assert [world.api.post("/api/auth/logout", headers=access).status_code for _ in range(2)] == [500, 500]
    assert world.api.post("/api/auth/logout", headers=access).status_code == 204
    assert world.api.get("/api/me", headers=access).json["code"] == "session_over"


def test_a_log_out_with_a_token_that_this_service_did_not_make_counts_for_the_address_and_ends_the_rest(
    make: Make,
) -> None:
    world = make(login_rate_limit="2/minute")
    person, unknown = owner_in(world), f"{uuid4().hex}.x.x"
    tokens, others = (log_in(world, person.email, address=OTHER).json for _ in range(2))
    answers = [send(world, "logout", STRANGER, refreshToken=unknown) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [204, 204, 429]
    access = {"Authorization": f"Bearer {tokens['accessToken']}"}
    place = {"REMOTE_ADDR": STRANGER}
    kept = {"Cookie": f"__Secure-refresh={others['refreshToken']}"}
    refused = world.app.test_client(use_cookies=False).post(
        "/api/auth/logout", json={"refreshToken": unknown}, headers=access | kept, environ_base=place
    )
    assert refused.status_code == 429
    cleared = [line.partition("=")[0] for line in refused.headers.getlist("Set-Cookie") if "Max-Age=0" in line]
    assert set(cleared) == {"__Host-access", "__Secure-refresh", "__Host-csrf"}
    for over in (tokens, others):
        headers = {"Authorization": f"Bearer {over['accessToken']}"}
        assert world.api.get("/api/me", headers=headers).json["code"] == "session_over"


def test_no_address_of_an_account_is_stored(make: Make) -> None:
    world = make()
    log_in(world, "person@example.com")
    stored = list(world.app.extensions[rate_limit.ATTEMPTS_EXTENSION]._own._windows)
    assert len(stored) == 3, stored
    assert not [key for key in stored if "person" in key]


def test_many_mailed_tokens_that_do_not_exist_hold_up_nobody(database: Database) -> None:
    """Requests that held their connections while they counted would wait for each other."""
    junk = {"token": "x" * 43}
    with running(database, max_connections=4, connection_wait_seconds=1.0) as app, ThreadPoolExecutor(12) as threads:

        def confirm(_: int) -> int:
            return app.test_client().post("/api/auth/email/confirm", json=junk).status_code

        assert set(threads.map(confirm, range(24))) == {404}
