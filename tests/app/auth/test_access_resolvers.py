"""Tenant resolvers through the application, with the real look-up."""

from dataclasses import replace
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from werkzeug.test import TestResponse

from app.auth import tenant_of_request
from app.users.standing import Standing, standing
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People
from tests.factories.slugs import NOT_SLUGS


def answer(response: TestResponse) -> tuple[int, Any]:
    return response.status_code, response.json


def test_every_way_reaches_the_tenant_it_names(api: Api, people: People, database: Database) -> None:
    person = people.make(eur="member", km="member")
    claiming = replace(person, token=people.token(person.user_id, database.tenant("km").id))
    currencies = [
        api.get("/api/wallet", person, "eur").json["currency"],
        api.get("/api/wallet", claiming).json["currency"],
        api.get("/api/eur/wallet", person).json["currency"],
        api.get("/api/wallet", person, base_url="http://KM.wallet.example:8080").json["currency"],
        api.get("/api/km/wallet", claiming, "km", base_url="http://km.wallet.example").json["currency"],
    ]
    assert currencies == ["EUR", "BAM", "EUR", "BAM", "BAM"]


def test_a_token_for_one_tenant_probes_no_other(api: Api, people: People, database: Database) -> None:
    """The caller's own, a foreign and an unknown tenant: one status, one body, one set of headers."""
    person = people.make(eur="member", km="member")
    stranger = people.make(eur="member")
    claims = {who: people.token(who.user_id, database.tenant("eur").id) for who in (person, stranger)}
    ends, headers = [], []
    for who, token in claims.items():
        for slug in ("km", "unknown", "KM'"):
            for response in (
                api.get("/api/wallet", replace(who, token=token), slug),
                api.get(f"/api/{slug}/wallet", replace(who, token=token)),
            ):
                ends.append(answer(response))
                headers.append(set(response.headers.keys()))
    assert ends == [ends[0]] * len(ends)
    assert headers == [headers[0]] * len(headers)
    assert (ends[0][0], ends[0][1]["code"]) == (400, "tenant_ambiguous")


def test_a_request_without_a_tenant_is_told_how_to_name_one(api: Api, people: People) -> None:
    status, problem = answer(api.get("/api/wallet", people.make(eur="member")))
    assert (status, problem["code"]) == (400, "tenant_required")


def test_what_is_no_slug_never_reaches_sql(app_asked: list[str | None], api: Api, people: People) -> None:
    person = people.make(eur="member")
    for slug in NOT_SLUGS:
        status, problem = answer(api.get(f"/api/{quote(slug)}/wallet", person))
        assert (status, problem["code"]) == (404, "tenant_not_found"), slug
    assert app_asked == [""] * len(NOT_SLUGS)


@pytest.fixture
def app_asked(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The slugs that the application looks up in PostgreSQL, with the real look-up."""
    asked: list[str | None] = []

    def spying(user_id: UUID, session_id: UUID | None, slug: str | None, tenant_id: UUID | None) -> Standing | None:
        asked.append(slug)
        return standing(user_id, session_id, slug, tenant_id)

    monkeypatch.setattr(tenant_of_request, "standing", spying)
    return asked
