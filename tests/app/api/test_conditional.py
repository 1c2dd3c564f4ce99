"""Tags of answers and of versions: a change names the version it has seen, and an unchanged answer is not sent."""

import pytest
from flask import Flask

from app.api.conditional import conditional_answer, etag, if_match
from app.errors import PreconditionFailed, PreconditionRequired
from tests.factories.api import Api
from tests.factories.people import People, Person


def test_a_version_is_read_back_from_its_tag_and_from_the_tag_of_the_whole_answer(app: Flask) -> None:
    for version in (0, 1, 999_999_999, 4_294_967_295):
        for tag in (etag(version)["ETag"], f'"{version}-0a1b"', f'W/"{version}"', f' W/"{version}-0a1b" '):
            with app.test_request_context(headers={"If-Match": tag}):
                assert if_match().version(lambda: 7) == version, tag


def test_a_tag_to_which_a_proxy_added_its_coding_is_our_own(app: Flask) -> None:
    """Apache adds `-gzip` inside the quotes, others `;gzip` or `-zstd`."""
    with app.test_request_context():
        whole = conditional_answer({"a": 1}, etag(4)).headers["ETag"]
    for coding in ("-gzip", ";gzip", "-br", "-zstd", "-deflate"):
        for tag in (f'"4{coding}"', f'{whole[:-1]}{coding}"'):
            with app.test_request_context(headers={"If-Match": tag}):
                assert if_match().version(lambda: 7) == 4, tag
        with app.test_request_context(headers={"If-None-Match": f'{whole[:-1]}{coding}"'}):
            assert conditional_answer({"a": 1}, etag(4)).status_code == 304
    with app.test_request_context(headers={"If-Match": '"4-other"'}), pytest.raises(PreconditionFailed):
        if_match()


def test_of_several_versions_and_of_any_the_current_one_is_taken(app: Flask) -> None:
    for header, allowed in (('"1", W/"7-ab"', True), ("*", True), ('"1","2"', False)):
        with app.test_request_context(headers={"If-Match": header}):
            assert if_match().allows(7) is allowed
            if allowed:
                assert if_match().version(lambda: 7) == 7
            else:
                with pytest.raises(PreconditionFailed):
                    if_match().version(lambda: 7)


def test_what_names_no_version_is_refused(app: Flask) -> None:
    with app.test_request_context(), pytest.raises(PreconditionRequired):
        if_match()
    for header in ("1", '"x"', '""', '"1000000000000"', '"4294967296"', "W/1"):
        with app.test_request_context(headers={"If-Match": header}), pytest.raises(PreconditionFailed):
            if_match()


@pytest.fixture
def member(people: People) -> Person:
    person = people.make(eur="admin")
    people.wallet(person, "eur", balance_minor=1_000)
    return person


def test_an_unchanged_wallet_is_not_sent_again_and_a_payment_changes_it(api: Api, member: Person) -> None:
    first = api.get("/api/wallet", member, "eur")
    assert first.headers["ETag"].startswith(f'"{first.json["version"]}-')
    for known in (first.headers["ETag"], f'"x", W/{first.headers["ETag"]}', "*"):
        again = api.get("/api/wallet", member, "eur", headers={"If-None-Match": known})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
        assert again.headers["Cache-Control"] == "no-store"
    assert api.post("/api/wallet/payments", member, "eur", json={"amount": "1.00"}).status_code == 201
    changed = api.get("/api/wallet", member, "eur", headers={"If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.json["balance"], changed.json["version"]) == (200, "9.00", 1)


def test_a_payment_does_not_stop_who_changes_the_limit_and_a_proxy_that_compresses_does_not(
    api: Api, member: Person
) -> None:
    path = f"/api/admin/wallets/{api.get('/api/wallet', member, 'eur').json['id']}"
    seen = api.get(path, member, "eur").headers["ETag"]
    assert api.post("/api/wallet/payments", member, "eur", json={"amount": "1.00"}).status_code == 201
    weak = f"W/{seen}"
    assert api.patch(path, member, "eur", if_match=weak, json={"creditLimit": "5.00"}).status_code == 200
    assert api.patch(path, member, "eur", if_match=weak, json={"creditLimit": "6.00"}).status_code == 412


def test_products_are_kept_by_the_callers_own_cache_and_asked_for_again(api: Api, member: Person) -> None:
    first = api.get("/api/products", member, "eur")
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert first.headers["Vary"] == "Authorization, Cookie, X-Tenant"
    again = api.get("/api/products", member, "eur", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.headers["Cache-Control"]) == (304, "private, no-cache")
    assert again.headers["Vary"] == first.headers["Vary"]


def test_the_description_is_public_and_conditional(api: Api) -> None:
    first = api.get("/openapi.json")
    assert first.headers["Cache-Control"] == "public, no-cache"
    assert api.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304


def test_head_has_the_headers_of_get_and_no_body(api: Api, member: Person) -> None:
    for path in ("/api/wallet", "/api/products", "/api/wallet/transactions", "/openapi.json", "/problems/"):
        get, head = api.get(path, member, "eur"), api.send("HEAD", path, member, "eur")
        assert (head.status_code, head.data) == (200, b""), path
        assert head.headers["Content-Length"] == get.headers["Content-Length"], path
        assert head.headers.get("ETag") == get.headers.get("ETag"), path
