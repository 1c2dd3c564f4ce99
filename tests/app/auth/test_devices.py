"""A device token says which user logged in on a device, and nobody but this service can write one."""

from collections.abc import Iterator
from time import time
from uuid import UUID, uuid4

import pytest
from flask import Flask

from app.auth import devices
from app.auth.devices import DEVICE_SECONDS, device_token, known_device
from app.auth.passwords import hash_password
from app.errors import TooManyRequests
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.browser import PASSWORD, Browser
from tests.factories.people import People, Person

NEW_PASSWORD = "another horse, another battery"


@pytest.fixture
def password_hash(app: Flask, person: Person, database: Database) -> Iterator[str]:
    """The person's password hash; the test runs in the application's context."""
    query = "SELECT password_hash FROM shared.users WHERE id = %s"
    ((kept,),) = database.as_superuser().execute(query, (person.user_id,)).fetchall()
    with app.app_context():
        yield kept


def test_a_device_is_known_by_its_own_user_and_password(person: Person, password_hash: str) -> None:
    device_id = uuid4()
    token = device_token(person.user_id, password_hash, device_id)
    known = known_device(f" {person.email.upper()}", ["x", token])
    assert known
    assert (known.id, known.user_id) == (device_id, person.user_id)
    assert known_device("unknown@example.com", [token]) is None
    assert known_device(person.email, []) is None
    for other in (
        device_token(uuid4(), password_hash),
        device_token(person.user_id, password_hash + "x"),
        device_token(person.user_id, None),
    ):
        assert known_device(person.email, [other]) is None


def test_a_token_that_was_changed_in_any_character_is_none(person: Person, password_hash: str) -> None:
    token = device_token(person.user_id, password_hash)
    assert len(token) <= 200
    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert devices._read(changed) is None, place
    for text in ("", ".", "é", "a", token[:-1], token + "A", token + token):
        assert devices._read(text) is None, text


def test_a_device_is_forgotten_after_a_long_time_and_with_another_secret_key(
    app: Flask, person: Person, password_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, now = device_token(person.user_id, password_hash), time()
    monkeypatch.setattr(devices, "time", lambda: now + DEVICE_SECONDS - 5)
    assert known_device(person.email, [token])
    monkeypatch.setattr(devices, "time", lambda: now + DEVICE_SECONDS + 5)
    assert known_device(person.email, [token]) is None
    monkeypatch.undo()
    monkeypatch.setitem(app.config, "SECRET_KEY", "another signing key, of 32 characters or more")
    assert known_device(person.email, [token]) is None


def test_a_disabled_user_has_no_known_device(person: Person, password_hash: str, database: Database) -> None:
    token = device_token(person.user_id, password_hash)
    database.as_superuser().execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (person.user_id,))
    assert known_device(person.email, [token]) is None


def tokens_of(browser: Browser) -> list[str]:
    return browser.cookies["__Secure-device"].value.split(".")


def test_a_browser_knows_several_users_the_last_one_first(app: Flask, people: People, person: Person) -> None:
    browser = Browser(app)
    others = [people.make(password_hash=hash_password(PASSWORD), eur="member") for _ in range(4)]
    for someone in (person, *others, person):
        assert browser.login(someone).status_code == 200
    kept = tokens_of(browser)
    assert len(kept) == 4
    with app.app_context():
        assert [bool(known_device(someone.email, kept)) for someone in (person, *others)] == [
            True,
            False,
            True,
            True,
            True,
        ]
        assert known_device(person.email, kept[:1])


def test_a_user_who_uses_up_a_shared_browsers_log_ins_keeps_no_other_out(
    person: Person, password_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other then logs in as from an unknown device."""
    mine, others = device_token(person.user_id, password_hash), device_token(uuid4(), password_hash)

    def refuse(_: UUID) -> None:
        raise TooManyRequests("Too many.")

    monkeypatch.setattr(devices, "count_device", refuse)
    assert known_device(person.email, [others, mine]) is None
    with pytest.raises(TooManyRequests):
        known_device(person.email, [mine])


def test_a_device_keeps_its_id_over_log_ins(app: Flask, browser: Browser, person: Person) -> None:
    """Or each log-in would give it new counts."""
    before = tokens_of(browser)
    assert browser.login(person).status_code == 200
    with app.app_context():
        known = [known_device(person.email, tokens) for tokens in (before, tokens_of(browser))]
    assert len({device and device.id for device in known}) == 1
    assert None not in known


def test_a_new_password_ends_all_devices_but_the_browser_that_sets_it(
    app: Flask, browser: Browser, person: Person
) -> None:
    other = Browser(app)
    other.login(person)
    before = [*tokens_of(browser), *tokens_of(other)]
    body = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    assert browser.send("POST", "/api/auth/password", csrf=browser.csrf, json=body).status_code == 200
    with app.app_context():
        assert known_device(person.email, before) is None
        assert known_device(person.email, tokens_of(browser))


def test_a_device_token_is_no_credential(app: Flask, browser: Browser) -> None:
    (token,) = tokens_of(browser)
    for headers in ({"Authorization": f"Bearer {token}"}, {"Cookie": f"__Host-access={token}"}):
        problem_of(app.test_client(use_cookies=False).get("/api/me", headers=headers), 401, "token_invalid")
    answer = Browser(app).send("POST", "/api/auth/refresh", json={"refreshToken": token})
    problem_of(answer, 401, "token_invalid")
