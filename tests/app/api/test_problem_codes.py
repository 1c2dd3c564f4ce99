"""The page of all codes, to which the `type` of every problem leads."""

import re

from app.api.problem_codes import problem_types
from tests.factories.api import Api


def test_every_code_is_described() -> None:
    types = problem_types()
    assert len(types) > 60
    assert [each.code for each in types if not re.fullmatch(r"[A-Z].{15,}\.", each.description)] == []


def test_the_type_of_a_problem_leads_to_a_page_of_its_code(api: Api) -> None:
    refused = api.get("/api/me")
    answer = api.get(refused.json["type"])
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert f'id="{refused.json["code"]}"' in answer.text
    assert f'id="{refused.json["code"]}"' in api.get("/problems/").text


def test_an_unknown_code_has_no_page(api: Api) -> None:
    assert api.get("/problems/nothing_of_the_kind").status_code == 404
