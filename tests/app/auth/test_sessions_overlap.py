"""Tabs that refresh at once, a reload, and a client that lost the answer go on; a thief who comes later does not."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.app.auth.test_sessions import is_out, login, me, reasons_of, refresh, use_ago
from tests.factories.api import Api
from tests.factories.application import running
from tests.factories.browser import Browser
from tests.factories.people import Person


@pytest.fixture
def other_process(database: Database) -> Iterator[Flask]:
    """Another application on the same database, with the same settings."""
    with running(database) as app:
        yield app


def test_refreshes_at_once_in_two_processes_get_the_same_token(
    app: Flask, other_process: Flask, api: Api, person: Person, database: Database
) -> None:
    for _ in range(5):
        token = login(api, person)["refreshToken"]
        barrier = Barrier(4)

        def attempt(number: int, token: str = token, barrier: Barrier = barrier) -> Any:
            client = Api((app, other_process)[number % 2])
            barrier.wait()
            return refresh(client, token)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(attempt, range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        assert len({answer.json["refreshToken"] for answer in answers}) == 1
        assert [me(api, answer.json).status_code for answer in answers] == [200] * 4
    assert reasons_of(database, person) == {None}


def test_two_tabs_of_a_browser_end_with_the_same_cookies(app: Flask, person: Person) -> None:
    """Both send the cookie that they had, whichever answer comes first."""
    browser = Browser(app)
    browser.login(person)
    before = dict(browser.cookies)
    kept = []
    for _ in range(2):
        browser.cookies = dict(before)
        assert browser.send("POST", "/api/auth/refresh", csrf=browser.csrf, json={}).status_code == 200
        kept.append({name: browser.cookies[name].value for name in ("__Secure-refresh", "__Host-csrf")})
    assert kept[0] == kept[1]
    assert kept[0]["__Secure-refresh"] != before["__Secure-refresh"].value
    assert browser.send("POST", "/api/auth/refresh", csrf=browser.csrf, json={}).status_code == 200


def test_a_late_answer_brings_the_newest_token_and_not_a_used_one(api: Api, person: Person, database: Database) -> None:
    """Otherwise the browser would keep a used token, and its next refresh would end the session."""
    first = login(api, person)["refreshToken"]
    second = refresh(api, first).json["refreshToken"]
    third = refresh(api, second).json["refreshToken"]
    assert refresh(api, first).json["refreshToken"] == third
    assert refresh(api, second).json["refreshToken"] == third
    for used in (first, second):
        use_ago(database, used, "31 seconds")
    assert refresh(api, third).status_code == 200
    assert reasons_of(database, person) == {None}


def test_the_overlap_begins_with_the_first_use_and_its_length_is_a_setting(
    api: Api, person: Person, database: Database
) -> None:
    tokens = login(api, person)
    refresh(api, tokens["refreshToken"])
    use_ago(database, tokens["refreshToken"], "29 seconds")
    newest = refresh(api, tokens["refreshToken"]).json
    use_ago(database, tokens["refreshToken"], "30 seconds")
    problem_of(refresh(api, tokens["refreshToken"]), 401, "session_over")
    is_out(api, tokens)
    is_out(api, newest)
    assert reasons_of(database, person) == {"reuse", None}
    with running(database, refresh_overlap_seconds=0) as strict:
        tokens = login(api, person)
        assert refresh(Api(strict), tokens["refreshToken"]).status_code == 200
        assert refresh(Api(strict), tokens["refreshToken"]).status_code == 401
        is_out(Api(strict), tokens)


@pytest.mark.parametrize(
    "ending",
    [
        "UPDATE shared.sessions SET ended_at = now(), end_reason = 'logout' WHERE user_id = %s",
        "UPDATE shared.sessions SET expires_at = now() WHERE user_id = %s",
        "UPDATE shared.users SET status = 'disabled' WHERE id = %s",
    ],
)
def test_in_the_overlap_an_ended_session_stays_ended(api: Api, person: Person, database: Database, ending: str) -> None:
    token = login(api, person)["refreshToken"]
    assert refresh(api, token).status_code == 200
    database.as_superuser().execute(ending, (person.user_id,))
    problem_of(refresh(api, token), 401, "session_over")


def test_a_change_of_the_secret_key_in_the_overlap_ends_no_session(
    api: Api, person: Person, database: Database
) -> None:
    """The first successor can't be derived again, and a second one would hide a thief."""
    token = login(api, person)["refreshToken"]
    successor = refresh(api, token).json["refreshToken"]
    with running(database, secret_key="another signing key, of 32 characters or more") as changed:
        problem_of(refresh(Api(changed), token), 401, "session_over")
        assert refresh(Api(changed), successor).status_code == 200
    assert reasons_of(database, person) == {None}


def test_no_row_tells_the_successor(api: Api, person: Person, database: Database) -> None:
    token = login(api, person)["refreshToken"]
    successor = refresh(api, token).json["refreshToken"].split(".")[1]
    query = "SELECT string_agg(t::text, ' ') FROM shared.refresh_tokens t"
    ((rows,),) = database.as_superuser().execute(query).fetchall()
    assert successor not in rows
    assert successor.encode().hex() not in rows
