"""A tenant's requests are counted together, exactly, and before its schema is touched. The limits of log-ins are in
`test_attempts.py`.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import pytest
from limits import parse

from app.limits.counters import ProcessCounters, WindowCount
from tests.app.limits.conftest import Make, World
from tests.factories.metrics import Growth

HEADERS = (
    *("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"),
    *("RateLimit-Policy", "RateLimit"),
)


def said(answer: Any) -> tuple[str | None, ...]:
    """Limit and remaining requests, which no clock changes."""
    return tuple(answer.headers.get(name) for name in HEADERS[:2])


def test_a_tenant_that_used_up_its_rate_gets_429_and_the_other_does_not_notice(make: Make) -> None:
    world = make(tenant_rate_limit="3/minute")
    assert [said(world.get("eur")) for _ in range(3)] == [("3", "2"), ("3", "1"), ("3", "0")]
    refused = world.get("eur")
    assert (refused.status_code, refused.mimetype, refused.json["code"]) == (
        429,
        "application/problem+json",
        "rate_limited",
    )
    assert said(refused) == ("3", "0")
    assert refused.headers["Retry-After"] == refused.headers["RateLimit-Reset"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    answered = world.get("km")
    assert (answered.status_code, said(answered)) == (200, ("3", "2"))
    assert "Retry-After" not in answered.headers


def test_a_caller_over_its_rate_takes_nothing_of_the_tenants_rate(make: Make) -> None:
    world = make(tenant_rate_limit="6/minute", caller_rate_limit="2/minute")
    growth = Growth(*(("wallet_limited_total", {"limit": "rate", "of": whose}) for whose in ("caller", "tenant")))
    member = world.people.make(eur="member")
    assert [world.get("eur").status_code for _ in range(5)] == [200, 200, 429, 429, 429]
    refused = world.get("eur")
    assert (refused.json["code"], said(refused)) == ("rate_limited", ("2", "0"))
    assert growth() == [4, 0]
    assert refused.headers["RateLimit-Policy"] == '"caller";q=2;w=60'
    answered = world.api.get("/api/admin/wallets", member, "eur")
    assert answered.headers["RateLimit-Policy"] == '"caller";q=2;w=60, "tenant";q=6;w=60'
    assert re.fullmatch(r'"caller";r=1;t=[0-9]+, "tenant";r=3;t=[0-9]+', answered.headers["RateLimit"])
    assert said(answered) == ("2", "1"), "the three older headers are of the limit with the least left"
    assert world.get("km").status_code == 200, "a caller has a rate in each tenant"


def test_a_tenants_own_rate_of_a_caller_replaces_the_default(make: Make) -> None:
    world = make(caller_rate_limit="5/hour")
    world.configure("eur", caller_rate_limit="1/hour")
    assert [world.get(slug).status_code for slug in ("eur", "eur", "km", "km")] == [200, 429, 200, 200]


def test_all_callers_of_a_tenant_share_its_rate_and_refused_requests_count(make: Make) -> None:
    world = make(tenant_rate_limit="3/minute")
    member = world.people.make(eur="member", km="member")
    refused = world.api.get("/api/admin/wallets", member, "eur")
    assert (refused.status_code, said(refused)) == (403, ("3", "2"))
    assert said(world.get("eur")) == ("3", "1")
    assert said(world.api.post("/api/eur/wallet/payments", member, json={})) == ("3", "0")
    assert {world.get("eur").status_code, world.api.get("/api/eur/wallet", member).status_code} == {429}
    assert world.api.get("/api/admin/wallets", member, "km").status_code == 403


def test_whoever_does_not_belong_to_a_tenant_takes_nothing_of_its_rate_and_learns_nothing_of_it(make: Make) -> None:
    world = make(tenant_rate_limit="1/minute")
    outsider = world.people.make(km="member")
    for _ in range(3):
        answer = world.api.get("/api/wallet", outsider, "eur")
        assert answer.status_code == 404
        assert not set(HEADERS) & set(answer.headers.keys())
    assert world.get("eur").status_code == 200


def test_of_many_requests_at_once_exactly_as_many_pass_as_the_limit_says(make: Make) -> None:
    world = make(tenant_rate_limit="25/minute")
    world.configure("km", rate_limit="10/minute")
    turns = ["eur", "km"] * 40
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda slug: (slug, world.get(slug).status_code), turns))
    assert {slug: answers.count((slug, 200)) for slug in ("eur", "km")} == {"eur": 25, "km": 10}
    assert {status for _, status in answers} == {200, 429}


def test_the_counts_in_memory_are_exact_between_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(number: int, ends_at: float) -> WindowCount:
        sleep(0)  # It is another thread's turn between the look and the count.
        return WindowCount(number, ends_at)

    monkeypatch.setattr("app.limits.counters.WindowCount", slowly)
    counts = ProcessCounters()
    with ThreadPoolExecutor(16) as threads:
        added = list(threads.map(lambda _: counts.add(parse("1/minute"), "key").number, range(4000)))
    assert sorted(added) == list(range(1, 4001))


def test_a_window_that_is_over_is_forgotten_and_a_new_one_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("app.limits.counters.time", lambda: now)
    counts, minute = ProcessCounters(), parse("1/minute")
    assert [counts.add(minute, "one"), counts.add(minute, "one")] == [(1, 1060), (2, 1060)]
    assert counts.add(parse("1/second"), "two") == (1, 1001)
    now = 1060.0
    assert counts.add(minute, "one") == (1, 1120)
    assert len(counts._windows) == 1, "ended windows are removed"


def test_a_limited_request_does_not_touch_the_tenants_schema(make: Make) -> None:
    world = make(tenant_rate_limit="1/minute")
    assert world.get("eur").status_code == 200
    world.database.as_superuser().execute("DROP SCHEMA eur_schema CASCADE")
    assert world.get("eur").json["code"] == "rate_limited"


def test_a_tenants_own_rate_counts_from_the_next_request_on_and_so_does_its_end(make: Make) -> None:
    world = make(tenant_rate_limit="5/hour")
    assert said(world.get("eur")) == ("5", "4")
    world.configure("eur", rate_limit="1/hour")
    assert said(world.get("eur")) == ("1", "0")
    assert world.get("eur").status_code == 429
    assert said(world.get("km")) == ("5", "4")
    world.configure("eur", rate_limit=None)
    assert said(world.get("eur")) == ("5", "3")


def test_in_memory_each_process_counts_for_itself(make: Make) -> None:
    one, other = make(tenant_rate_limit="1/minute"), make(tenant_rate_limit="1/minute")
    assert [one.get("eur").status_code, one.get("eur").status_code] == [200, 429]
    assert [other.get("eur").status_code, other.get("eur").status_code] == [200, 429]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json", "/docs/", "/api/products/none"])
def test_what_belongs_to_no_tenant_is_not_counted(make: Make, path: str) -> None:
    world = make(tenant_rate_limit="1/day", login_rate_limit="1/day")
    answers = [world.api.get(path, world.admin) for _ in range(4)]
    assert {answer.status_code for answer in answers} in ({200}, {400}, {404})
    assert not set(HEADERS) & set(answers[0].headers.keys())


def test_a_caller_has_a_rate_and_slots_on_the_shared_side_too(make: Make) -> None:
    world = make(caller_rate_limit="2/hour", request_concurrency=1)
    answers = [world.api.get("/api/me", world.admin) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].headers["RateLimit-Policy"] == '"caller";q=2;w=3600'
    assert world.get("eur").status_code == 200
    other = world.people.make(eur="member")
    with world.api.get("/api/me", other, buffered=False):
        assert world.api.get("/api/me", other).json["code"] == "too_many_concurrent_requests"


def log_in(world: World, email: str, password: str = "right", **more: Any) -> Any:
    return world.api.post("/api/auth/login", json={"email": email, "password": password}, **more)


def from_address(address: str) -> dict[str, Any]:
    return {"environ_base": {"REMOTE_ADDR": address}}


def test_of_ipv6_the_network_counts_and_not_the_address(make: Make) -> None:
    world = make(login_rate_limit="2/minute")
    addresses = ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:0:9::3", "2001:db8:0:1::1")
    statuses = [log_in(world, f"{a}@example.com", **from_address(a)).status_code for a in addresses]
    assert statuses == [401, 401, 429, 401]


@pytest.mark.parametrize(("proxies", "statuses"), [(0, [401, 429, 429]), (1, [401, 401, 429]), (2, [401, 429, 429])])
def test_a_forwarded_address_is_believed_from_so_many_proxies_only(
    make: Make, proxies: int, statuses: list[int]
) -> None:
    world = make(login_rate_limit="1/minute", trusted_proxies=proxies)
    forwarded = ("198.51.100.1, 203.0.113.1", "198.51.100.1, 203.0.113.2", "198.51.100.1, 203.0.113.2")
    answers = [
        log_in(world, f"{number}@example.com", headers={"X-Forwarded-For": each})
        for number, each in enumerate(forwarded)
    ]
    assert [answer.status_code for answer in answers] == statuses


@pytest.mark.parametrize(
    ("forwarded", "statuses"),
    [
        (("198.51.100.1:5001", "198.51.100.1:5002", "198.51.100.1"), [401, 429, 429]),
        (("[2001:db8::1]:5001", "[2001:db8::2]:5002", "2001:db8::3"), [401, 429, 429]),
        (("one", "two", "198.51.100.1:x"), [401, 429, 429]),
        (("198.51.100.1:5001", "198.51.100.2:5001", "one"), [401, 401, 401]),
    ],
)
def test_a_forwarded_port_makes_no_other_caller(make: Make, forwarded: tuple[str, ...], statuses: list[int]) -> None:
    world = make(login_rate_limit="1/minute", trusted_proxies=1)
    answers = [
        log_in(world, f"{number}@example.com", headers={"X-Forwarded-For": each})
        for number, each in enumerate(forwarded)
    ]
    assert [answer.status_code for answer in answers] == statuses


def test_behind_proxies_a_forwarded_host_names_no_tenant(make: Make) -> None:
    world = make(trusted_proxies=1)
    forged = {"X-Forwarded-Host": "eur.wallet.example", "X-Forwarded-Prefix": "/api/eur", "X-Forwarded-Proto": "https"}
    assert world.api.get("/api/wallet", world.admin, headers=forged).json["code"] == "tenant_required"
    answer = world.api.get("/api/wallet", world.admin, headers=forged, base_url="http://km.wallet.example")
    assert answer.json["tenantId"] == "km"


def test_the_description_says_how_a_refusal_looks(make: Make) -> None:
    described = make().api.get("/openapi.json").json
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if method != "parameters":
                assert set(HEADERS) < set(operation["responses"]["429"]["headers"]), (method, path)
