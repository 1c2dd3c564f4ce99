"""A user's own account over HTTP: a forgotten password, the name, the address, and the own sessions."""

from collections.abc import Callable
from typing import Any, LiteralString
from uuid import uuid4

import pytest
from werkzeug.test import TestResponse

from app.auth import service as auth_service
from app.auth.passwords import hash_password, is_right
from app.mail.tokens import hash_of
from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import faults_of, problem_of
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.application import running
from tests.factories.mail import Mailbox, token_in
from tests.factories.people import People, Person

PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "another horse, another battery"
RESET = "Set a new password"
STRANGER, OWNER, OTHER = "192.0.2.1", "198.51.100.1", "203.0.113.1"
ASKED = "Another address was asked for your account"
CHANGED_ADDRESS = "The address of your account was changed"
CHANGED = "Your password was changed"


@pytest.fixture
def person(people: People) -> Person:
    return people.make(password_hash=hash_password(PASSWORD), name="Ana of the Horses", eur="member")


def login(api: Api, email: str, password: str = PASSWORD, **more: Any) -> TestResponse:
    return api.send("POST", "/api/auth/login", json={"email": email, "password": password}, **more)


def forgotten(api: Api, email: str, address: str = "127.0.0.1") -> TestResponse:
    environ = {"REMOTE_ADDR": address}
    return api.send("POST", "/api/auth/password/forgotten", json={"email": email}, environ_base=environ)


def reset(api: Api, token: str, new: str = NEW_PASSWORD) -> TestResponse:
    return api.send("POST", "/api/auth/password/reset", json={"token": token, "newPassword": new})


def change_email(api: Api, person: Person, new: str, password: str = PASSWORD) -> TestResponse:
    body = {"newEmail": new, "currentPassword": password}
    return api.post("/api/me/email", person, json=body)


def confirm(api: Api, token: str) -> TestResponse:
    return api.send("POST", "/api/auth/email/confirm", json={"token": token})


def new_address() -> str:
    return f"{uuid4().hex}@example.com"


# --- a forgotten password ------------------------------------------------------------------------------------------


def test_a_forgotten_password_is_replaced_and_every_session_ends(api: Api, person: Person, mailbox: Mailbox) -> None:
    tokens = login(api, person.email).json
    assert forgotten(api, person.email.upper()).status_code == 202
    assert reset(api, mailbox.token(person.email)).status_code == 200
    problem_of(login(api, person.email), 401, "bad_credentials")
    assert login(api, person.email, NEW_PASSWORD).status_code == 200
    assert api.get("/api/me", person).status_code == 401
    refreshed = api.send("POST", "/api/auth/refresh", json={"refreshToken": tokens["refreshToken"]})
    assert refreshed.status_code == 401
    assert mailbox.subjects(person.email) == [CHANGED]


def test_a_token_is_good_once_and_is_not_stored(api: Api, person: Person, mailbox: Mailbox, database: Database) -> None:
    forgotten(api, person.email)
    token = mailbox.token(person.email)
    query = "SELECT m::text, token_hash FROM shared.account_mails m WHERE user_id = %s"
    with database.as_superuser() as superuser:
        ((row, token_hash),) = superuser.execute(query, (person.user_id,)).fetchall()
    assert token not in row
    assert token_hash == hash_of(token)
    assert reset(api, token).status_code == 200
    problem_of(reset(api, token, PASSWORD), 404, "account_token_not_found")
    assert login(api, person.email, NEW_PASSWORD).status_code == 200


def test_a_stranger_who_asks_too_makes_no_mail_useless(api: Api, person: Person, mailbox: Mailbox) -> None:
    """The unused token is sent again. A used one is not: the next mail has another."""
    forgotten(api, person.email)
    (mail,) = mailbox.collect(person.email)
    first = token_in(mail)
    forgotten(api, person.email)
    (again,) = mailbox.collect(person.email)
    assert token_in(again) == first
    assert again["Message-ID"] != mail["Message-ID"], "a server would drop the second mail as the same one"
    assert reset(api, first).status_code == 200
    forgotten(api, person.email)
    mails = mailbox.collect(person.email)
    assert [mail["Subject"] for mail in mails] == [CHANGED, RESET]
    assert token_in(mails[1]) != first


def test_a_token_lives_on_while_it_is_asked_for_but_no_longer_than_a_day(
    api: Api, person: Person, mailbox: Mailbox, database: Database
) -> None:
    change = "UPDATE shared.account_mails SET {} = {} - %s::interval WHERE user_id = %s"

    def earlier(column: str, age: str) -> None:
        with database.as_superuser() as superuser:
            superuser.execute(change.format(column, column).encode(), (age, person.user_id))

    forgotten(api, person.email)
    first = mailbox.token(person.email)
    earlier("expires_at", "1700 seconds")
    forgotten(api, person.email)
    assert mailbox.token(person.email) == first
    earlier("expires_at", "1700 seconds")
    assert (
        api.send("POST", "/api/auth/password/reset", json={"token": first, "newPassword": "short"}).status_code == 422
    )
    earlier("token_made_at", "1 day")
    forgotten(api, person.email)
    assert mailbox.token(person.email) != first
    problem_of(reset(api, first), 404, "account_token_not_found")


def test_an_expired_token_is_refused(api: Api, person: Person, mailbox: Mailbox, database: Database) -> None:
    forgotten(api, person.email)
    token = mailbox.token(person.email)
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.account_mails SET expires_at = now() WHERE user_id = %s", (person.user_id,))
    problem_of(reset(api, token), 404, "account_token_not_found")


def test_a_token_of_another_kind_is_refused(api: Api, person: Person, mailbox: Mailbox) -> None:
    forgotten(api, person.email)
    token = mailbox.token(person.email)
    problem_of(confirm(api, token), 404, "account_token_not_found")
    problem_of(
        api.send("POST", "/api/auth/invitations/accept", json={"token": token, "password": NEW_PASSWORD}),
        404,
        "account_token_not_found",
    )


def test_an_unknown_and_a_disabled_address_get_the_same_answer_and_no_mail(
    api: Api, people: People, person: Person, mailbox: Mailbox, database: Database
) -> None:
    """One row is written for each, so that the cost is the same too."""
    unknown, disabled = new_address(), people.make(password_hash="!", eur="member")
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (disabled.user_id,))

    def rows() -> int:
        with database.as_superuser() as superuser:
            ((count,),) = superuser.execute("SELECT count(*) FROM shared.account_mails").fetchall()
        return int(count)

    answers, before = [], rows()
    for number, email in enumerate((person.email, unknown, disabled.email), start=1):
        answer = forgotten(api, email)
        answers.append((answer.status_code, answer.get_data(), sorted(answer.headers.keys())))
        assert rows() == before + number
    assert answers[0] == answers[1] == answers[2]
    assert mailbox.subjects(unknown) == mailbox.subjects(disabled.email) == []
    assert mailbox.subjects(person.email) == [RESET]


def test_a_user_who_was_disabled_meanwhile_gets_no_password(
    api: Api, person: Person, mailbox: Mailbox, database: Database
) -> None:
    forgotten(api, person.email)
    token = mailbox.token(person.email)
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET status = 'disabled' WHERE id = %s", (person.user_id,))
    problem_of(reset(api, token), 404, "account_token_not_found")


def test_an_account_without_a_password_gets_its_first_one(api: Api, people: People, mailbox: Mailbox) -> None:
    person = people.make(eur="member")
    forgotten(api, person.email)
    assert reset(api, mailbox.token(person.email)).status_code == 200
    assert login(api, person.email, NEW_PASSWORD).status_code == 200


def test_an_account_of_an_identity_provider_is_told_that_it_has_none(
    database: Database, people: People, person: Person
) -> None:
    without = people.make(eur="member")
    with running(database, oidc_issuer="https://id.example", oidc_audience="wallet") as app:
        api, mailbox = Api(app), Mailbox(app)
        for email in (without.email, person.email):
            assert forgotten(api, email).status_code == 202
        (mail,) = mailbox.collect(without.email)
        assert mail["Subject"] == "Your account has no password"
        assert "token" not in mail.get_content()
        assert mailbox.subjects(person.email) == [RESET]


def test_a_token_that_went_to_an_address_which_the_account_has_left_is_refused(
    api: Api, person: Person, mailbox: Mailbox, database: Database
) -> None:
    """As if it had been asked for while the change of the address was in progress."""
    forgotten(api, person.email)
    token = mailbox.token(person.email)
    with database.as_superuser() as superuser:
        superuser.execute("UPDATE shared.users SET email = %s WHERE id = %s", (new_address(), person.user_id))
    problem_of(reset(api, token), 404, "account_token_not_found")


@pytest.mark.parametrize("part", ["address", "local part", "name"])
def test_a_password_that_is_the_address_or_the_name_is_refused(
    api: Api, person: Person, mailbox: Mailbox, part: str
) -> None:
    parts = {"address": person.email.upper(), "local part": person.email.partition("@")[0], "name": "ana of the horses"}
    forgotten(api, person.email)
    token = mailbox.token(person.email)
    assert faults_of(reset(api, token, parts[part])) == [("newPassword", "obvious_password")]
    body = {"currentPassword": PASSWORD, "newPassword": parts[part]}
    refused = api.post("/api/auth/password", person, json=body)
    assert faults_of(refused) == [("newPassword", "obvious_password")]
    assert reset(api, token).status_code == 200, "a refused password uses no token up"


def test_a_stranger_at_one_address_uses_up_none_of_the_owners_mails(database: Database, person: Person) -> None:
    """Nor does a stranger at many: then the owner has a mail that works. Unknown accounts are counted alike."""
    with running(database, mail_rate_limit="2/hour", account_mail_limit="5/hour") as app:
        for email in (person.email, new_address()):
            asked = [forgotten(Api(app), email, STRANGER).status_code for _ in range(9)]
            assert asked == [202, 202] + [429] * 7
            owner = [forgotten(Api(app), email, OWNER).status_code for _ in range(3)]
            assert owner == [202, 202, 429]
            assert [forgotten(Api(app), email, OTHER).status_code for _ in range(2)] == [202, 429]
        assert reset(Api(app), Mailbox(app).token(person.email)).status_code == 200


def test_a_backend_with_one_address_asks_for_all_its_users(database: Database) -> None:
    with running(database, mail_rate_limit="1/hour", account_rate_limit="1/hour") as app:
        assert [forgotten(Api(app), new_address()).status_code for _ in range(3)] == [202] * 3


def test_wrong_tokens_of_an_address_are_limited_and_right_ones_are_not(database: Database, people: People) -> None:
    with running(database, account_rate_limit="2/hour") as app:
        api, mailbox = Api(app), Mailbox(app)
        for _ in range(3):
            email = people.make(password_hash="!", eur="member").email
            forgotten(api, email)
            assert reset(api, mailbox.token(email)).status_code == 200
        mailbox.collect(email)
        forgotten(api, email)
        token = mailbox.token(email)
        for _ in range(3):
            assert faults_of(reset(api, token, email)) == [("newPassword", "obvious_password")], "no guess of a token"
        assert reset(api, "unknown").status_code == 404
        assert confirm(api, "unknown").status_code == 404
        assert reset(api, "unknown").status_code == 429
        body = {"token": "unknown", "password": NEW_PASSWORD}
        assert api.send("POST", "/api/auth/invitations/accept", json=body).status_code == 429
        assert reset(api, token).status_code == 200, "junk holds up nobody who has a token"


def test_a_change_of_the_password_is_told_to_its_owner(api: Api, person: Person, mailbox: Mailbox) -> None:
    body = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
    assert api.post("/api/auth/password", person, json=body).status_code == 200
    assert mailbox.subjects(person.email) == [CHANGED]


# --- name and address ----------------------------------------------------------------------------------------------


def test_a_name_is_changed(api: Api, person: Person) -> None:
    answer = api.send("PATCH", "/api/me", person, json={"name": "Ana Anić"})
    assert answer.json == {"id": str(person.user_id), "email": person.email, "name": "Ana Anić"}
    refused = api.send("PATCH", "/api/me", person, json={"name": "Ana\nBcc: Eve"})
    assert faults_of(refused) == [("name", "control_character")]
    assert api.get("/api/me", person).json["name"] == "Ana Anić"


def test_an_address_is_changed_when_it_is_confirmed_and_both_get_a_mail(
    api: Api, person: Person, mailbox: Mailbox
) -> None:
    new = new_address()
    assert change_email(api, person, new.upper()).status_code == 202
    token = mailbox.token(new)
    assert login(api, person.email).status_code == 200, "the old address is good until then"
    assert confirm(api, token).status_code == 204
    problem_of(confirm(api, token), 404, "account_token_not_found")
    assert login(api, new).status_code == 200
    problem_of(login(api, person.email), 401, "bad_credentials")
    assert mailbox.subjects(new) == [CHANGED_ADDRESS]
    assert mailbox.subjects(person.email) == [ASKED, CHANGED_ADDRESS]


def test_both_mails_of_a_change_name_the_account_and_say_what_to_do(api: Api, person: Person, mailbox: Mailbox) -> None:
    new = new_address()
    change_email(api, person, new)
    (asked,), (told,) = mailbox.collect(new), mailbox.collect(person.email)
    assert f"in place of {person.email}" in asked.get_content()
    assert "If this was not you, do nothing" in asked.get_content()
    assert f"address {new} in place of {person.email}" in told.get_content()
    assert "If this was not you, set a new password at once" in told.get_content()
    assert token_in(asked) not in told.get_content()


@pytest.mark.parametrize("end", ["another change", "a new password"])
def test_a_token_for_an_address_ends_with_another_change_and_with_a_new_password(
    api: Api, person: Person, mailbox: Mailbox, end: str
) -> None:
    first, second = new_address(), new_address()
    change_email(api, person, first)
    token = mailbox.token(first)
    if end == "another change":
        change_email(api, person, second)
    else:
        body = {"currentPassword": PASSWORD, "newPassword": NEW_PASSWORD}
        assert api.post("/api/auth/password", person, json=body).status_code == 200
    problem_of(confirm(api, token), 404, "account_token_not_found")


def test_a_change_of_the_address_needs_the_password(api: Api, people: People, person: Person) -> None:
    problem_of(change_email(api, person, new_address(), "wrong"), 403, "wrong_password")
    problem_of(change_email(api, people.make(eur="member"), new_address()), 409, "no_password")


@pytest.mark.parametrize(
    "address",
    [
        "no address",
        "a@b@c",
        "a,b@example.com",
        "ana@example.com, eve@example.com",
        "<a@example.com>",
        "ana@exámple.com",
    ],
)
def test_text_that_is_no_single_address_is_refused(api: Api, person: Person, address: str) -> None:
    assert faults_of(change_email(api, person, address)) == [("newEmail", "not_an_address")]


def test_an_address_of_another_account_is_refused_to_its_own_owner_only(
    api: Api, people: People, person: Person, mailbox: Mailbox
) -> None:
    other = people.make(password_hash=hash_password(PASSWORD), eur="member")
    assert change_email(api, person, other.email).status_code == 202
    token = mailbox.token(other.email)
    problem_of(confirm(api, token), 409, "user_exists")
    assert api.get("/api/me", person).json["email"] == person.email


def test_a_reset_stops_a_thief_who_had_asked_for_another_address(api: Api, person: Person, mailbox: Mailbox) -> None:
    thiefs = new_address()
    change_email(api, person, thiefs)
    token = mailbox.token(thiefs)
    assert mailbox.subjects(person.email) == [ASKED]
    forgotten(api, person.email)
    assert reset(api, mailbox.token(person.email)).status_code == 200
    problem_of(confirm(api, token), 404, "account_token_not_found")


def test_a_new_address_stops_a_reset_that_went_to_the_old_one(api: Api, person: Person, mailbox: Mailbox) -> None:
    forgotten(api, person.email)
    old, new = mailbox.token(person.email), new_address()
    change_email(api, person, new)
    assert confirm(api, mailbox.token(new)).status_code == 204
    problem_of(reset(api, old), 404, "account_token_not_found")


# --- my sessions ---------------------------------------------------------------------------------------------------


def sessions_of(api: Api, person: Person, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.get(f"/api/me/sessions{query}", person).json["items"]
    return items


def test_my_sessions_are_listed_with_their_client_and_ended(api: Api, people: People, person: Person) -> None:
    other = login(api, person.email, tenant="eur", headers={"User-Agent": "Browser/1.0"}).json
    listed = sessions_of(api, person)
    assert len(listed) == 2
    assert listed[0] | {"userAgent": "Browser/1.0", "tenantId": "eur", "isCurrent": False} == listed[0]
    assert listed[1] | {"userAgent": None, "tenantId": None, "isCurrent": True, "hasSecondFactor": False} == listed[1]
    assert api.send("DELETE", f"/api/me/sessions/{listed[0]['id']}", person).status_code == 204
    assert sessions_of(api, person) == [listed[1]]
    refreshed = api.send("POST", "/api/auth/refresh", json={"refreshToken": other["refreshToken"]})
    assert refreshed.status_code == 401


def test_a_refresh_is_a_use(api: Api, person: Person) -> None:
    token = login(api, person.email).json["refreshToken"]
    before = sessions_of(api, person)[0]
    api.send("POST", "/api/auth/refresh", json={"refreshToken": token})
    after = sessions_of(api, person)[0]
    assert before["startedAt"] == before["lastUsedAt"] < after["lastUsedAt"]
    assert after["lastUsedAt"].endswith("Z")


def test_all_other_sessions_end_and_this_one_stays(api: Api, person: Person) -> None:
    for _ in range(3):
        login(api, person.email)
    assert len(sessions_of(api, person)) == 4
    assert api.send("DELETE", "/api/me/sessions", person).status_code == 204
    assert [session["isCurrent"] for session in sessions_of(api, person)] == [True]


def test_the_list_goes_on_at_its_cursor(api: Api, person: Person) -> None:
    login(api, person.email)
    first = api.get("/api/me/sessions?limit=1", person).json
    second = api.get(f"/api/me/sessions?limit=1&cursor={first['nextCursor']}", person).json
    assert [*first["items"], *second["items"]] == sessions_of(api, person)
    assert second["nextCursor"] is None


def test_nobody_ends_a_session_of_another(api: Api, people: People, person: Person) -> None:
    other = people.make(eur="admin")
    (theirs,) = sessions_of(api, other)
    for session_id in (theirs["id"], ID_OF_NOTHING):
        problem_of(api.send("DELETE", f"/api/me/sessions/{session_id}", person), 404, "session_not_found")
    assert sessions_of(api, other) == [theirs]


# --- what happens while a request is under way -----------------------------------------------------------------------

OVER = "UPDATE shared.sessions SET ended_at = now(), end_reason = 'password' WHERE user_id = %s"
OTHER_PASSWORD = "UPDATE shared.users SET password_hash = 'another' WHERE id = %s"


@pytest.fixture
def meanwhile(database: Database, person: Person, monkeypatch: pytest.MonkeyPatch) -> Callable[[LiteralString], None]:
    """Let the owner do something while the thief's proof of the password is hashed."""

    def arrange(statement: LiteralString) -> None:
        def hashed_slowly(password: str, password_hash: str | None) -> bool:
            database.as_superuser().execute(statement, (person.user_id,))
            return is_right(password, password_hash)

        monkeypatch.setattr(auth_service, "is_right", hashed_slowly)

    return arrange


@pytest.mark.parametrize(
    ("statement", "status", "code"), [(OVER, 401, "session_over"), (OTHER_PASSWORD, 403, "wrong_password")]
)
def test_a_thiefs_request_for_an_address_does_not_outlive_a_new_password(
    api: Api,
    person: Person,
    meanwhile: Callable[[LiteralString], None],
    statement: LiteralString,
    *,
    status: int,
    code: str,
) -> None:
    meanwhile(statement)
    problem_of(change_email(api, person, new_address()), status, code)
