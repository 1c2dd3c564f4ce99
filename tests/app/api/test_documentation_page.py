"""The page at /docs loads nothing from elsewhere, and its policy forbids what it does not need."""

import re

import pytest

from app.api.documentation_page import FILES, LOGO_STYLE, PAGE_POLICY
from tests.factories.api import Api


def test_the_page_and_all_it_loads_come_from_here(api: Api) -> None:
    page = api.get("/docs", follow_redirects=True)
    assert (page.status_code, page.mimetype) == (200, "text/html")
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page.text)
    assert len(loaded) > 3
    for address in loaded:
        assert address.startswith("/docs/"), address
        with api.get(address) as asset:
            assert asset.status_code == 200, address
            if address.endswith(".css"):
                assert not re.search(rb"""@import|url\(\s*["']?(https?:)?//""", asset.data), address
    start = api.get("/docs/start.js")
    assert start.mimetype == "text/javascript"
    assert 'url: "/openapi.json"' in start.text
    assert "validatorUrl: null" in start.text, "Swagger's validator is a service on the internet"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/docs", "/docs/"),
        ("/docs?a=b%20c", "/docs/?a=b%20c"),
        ("/problems", "/problems/"),
        ("//attacker.example//docs", None),
    ],
)
def test_a_redirect_names_a_path_and_no_host(api: Api, asked: str, meant: str | None) -> None:
    """Behind a proxy that ends TLS, the service knows neither the scheme nor always the host."""
    answer = api.get(asked, headers={"Host": "attacker.example"})
    place = answer.headers.get("Location", "/")
    assert re.match("/(?!/)", place), place
    if meant:
        assert (answer.status_code, place) == (308, meant)


def test_the_page_names_no_other_host(api: Api) -> None:
    page = api.get("/docs/", headers={"Host": "attacker.example"}).text + api.get("/docs/start.js").text
    assert re.findall(r"https?://|attacker", page) == []


def test_the_policy_allows_files_of_this_service_only(api: Api) -> None:
    page = api.get("/docs/")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert {policy[name] for name in ("script-src", "connect-src")} == {"'self'"}
    assert re.fullmatch(r"'self' 'sha256-[A-Za-z0-9+/]{43}='", policy["style-src"])
    assert LOGO_STYLE in (FILES / "swagger-ui-standalone-preset.js").read_text(), "the one style that Swagger UI writes"
    assert policy["img-src"] == "'self' data:"
    assert not re.search(r"<script>|<style|\son[a-z]+=|\sstyle=", page.text), "the policy would forbid it"


def test_every_page_below_has_the_policy(api: Api) -> None:
    for path in ("/docs/oauth2-redirect.html", "/docs/swagger-ui.css"):
        with api.get(path) as answer:
            assert answer.headers["Content-Security-Policy"] == PAGE_POLICY


def test_a_path_leads_out_of_the_folder_never(api: Api) -> None:
    for path in ("/docs/../../../setup.cfg", "/docs/%2e%2e/__init__.py", "/docs/..%2f__init__.py", "/docs//etc/passwd"):
        assert api.get(path).status_code == 404, path
