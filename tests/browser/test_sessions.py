"""A member's page in Chromium, in two tabs: sessions go on while tokens expire, and end when the member says so.

The page uses the generated TypeScript client. nginx makes one origin of the page and the API, with gzip.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app.auth.passwords import hash_password
from app.config import ROOT
from tenant_schemas.testing.plugin import Database
from tests.factories.clients import clients, needs_node  # noqa: F401  The fixture.
from tests.factories.nginx import needs_nginx, one_origin
from tests.factories.people import People
from tests.factories.served import served

CHROMIUM = shutil.which("chromium")
PASSWORD = "a long password of a test"
TOKEN_SECONDS = 2
SERVED_AS = ("--worker-class", "app.gunicorn_worker.BufferedWorker", "--threads", "32")
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
pytestmark = [
    needs_node,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
    needs_nginx,
]


@pytest.fixture
def origin(database: Database, clients: Path, tmp_path: Path) -> Iterator[str]:  # noqa: F811
    pages = {
        "/client/": clients / "typescript",
        "/modules/": ROOT / "scripts" / "clients" / "node_modules",
        "/": ROOT / "tests" / "browser" / "page",
    }
    log, lifetime = tmp_path / "gunicorn.log", str(TOKEN_SECONDS)
    with served(database, log, *SERVED_AS, TOKEN_SECONDS=lifetime) as api, one_origin(api, tmp_path, pages) as url:
        yield url


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


def opened(page: Page, origin: str) -> Page:
    page.goto(origin + "/index.html")
    return page


def test_two_tabs_refresh_at_once_and_log_out_after_expiry(browser: Browser, origin: str, people: People) -> None:
    person = people.make(password_hash=hash_password(PASSWORD), eur="member")
    context = browser.new_context()
    first = opened(context.new_page(), origin)
    first.get_by_label("Address").fill(person.email)
    first.get_by_label("Password").fill(PASSWORD)
    with first.expect_navigation():
        first.get_by_role("button", name="Log in").click()
    second = opened(context.new_page(), origin)

    for _ in range(3):
        time.sleep(TOKEN_SECONDS)
        for tab in (first, second):
            tab.evaluate("document.querySelector('#load').click()")
        for tab in (first, second):
            expect(tab.get_by_role("status")).to_have_text("loaded" + 12 * " 200")

    kept = context.cookies()
    assert {cookie["name"] for cookie in kept} >= {"__Secure-refresh", "__Host-csrf"}
    time.sleep(TOKEN_SECONDS)
    first.get_by_role("button", name="Log out").click()
    expect(first.get_by_role("status")).to_have_text("logged out 204")
    assert [cookie["name"] for cookie in context.cookies()] == ["__Secure-device"]
    second.get_by_role("button", name="Load").click()
    expect(second.get_by_role("status")).to_have_text("loaded" + 12 * " 401")

    thief = browser.new_context()
    thief.add_cookies(kept)
    page = opened(thief.new_page(), origin)
    page.get_by_role("button", name="Load").click()
    expect(page.get_by_role("status")).to_have_text("loaded" + 12 * " 401")
