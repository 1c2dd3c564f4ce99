"""A tenant's body limit always applies, and a tenant with invalid settings is told so and affects no other."""

from typing import Any

import pytest

from tests.app.limits.conftest import Make, World

PAYMENTS, BULK = "/api/wallet/payments", "/api/admin/bulk/transactions"


def body_of(length: int) -> dict[str, Any]:
    return {"data": b" " * length, "content_type": "application/json"}


def code(world: World, slug: str, path: str, length: int) -> str:
    return str(world.post(slug, path, **body_of(length)).json["code"])


def bulk_path(world: World) -> str:
    found = [rule.rule for rule in world.app.url_map.iter_rules() if "bulk" in rule.endpoint]
    assert found
    return found[0]


def test_a_tenants_own_body_limit_counts_everywhere_and_for_nobody_else(make: Make) -> None:
    world = make(max_body_bytes=1000)
    bulk = bulk_path(world)
    assert code(world, "eur", bulk, 5000) == "invalid_json"
    world.configure("eur", max_body_bytes=100)
    for path in (PAYMENTS, bulk):
        assert code(world, "eur", path, 100) == "invalid_json"
        assert code(world, "eur", path, 101) == "body_too_large"
    assert code(world, "km", PAYMENTS, 1000) == "invalid_json"
    assert code(world, "km", bulk, 5000) == "invalid_json"


def test_a_tenants_own_body_limit_raises_none(make: Make) -> None:
    world = make(max_body_bytes=1000)
    world.configure("eur", max_body_bytes=2000)
    assert code(world, "eur", PAYMENTS, 1001) == "body_too_large"


@pytest.mark.parametrize(
    "broken",
    [
        {"currency": None},
        {"currency": "EURO"},
        {"rate_limit": "much"},
        {"rate_limit": "0/second"},
        {"max_concurrent_requests": 0},
        {"max_body_bytes": "large"},
        {"statement_timeout_ms": True},
    ],
)
def test_a_tenant_with_broken_settings_is_unavailable_alone_until_they_are_mended(
    make: Make, broken: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    world = make()
    whole = dict(world.database.tenant("eur").settings)
    world.configure("eur", **broken)
    answer = world.get("eur")
    assert (answer.status_code, answer.json["code"]) == (503, "tenant_misconfigured")
    assert "Retry-After" in answer.headers
    assert next(iter(broken)) not in answer.get_data(as_text=True)
    assert f'"faults": "{next(iter(broken))}: ' in capsys.readouterr().out
    assert world.get("km").status_code == 200
    world.configure("eur", **{name: whole.get(name) for name in broken})
    assert world.get("eur").status_code == 200


def test_a_setting_of_a_later_revision_is_passed_over(make: Make) -> None:
    world = make()
    world.configure("eur", colour="green")
    assert world.get("eur").status_code == 200
