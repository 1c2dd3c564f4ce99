"""GET /api/admin/settings: what holds in a tenant now, for its staff."""

from typing import Any

import pytest
from flask import Flask

from app.limits import EXTENSION
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People

LIMITS = ("rateLimit", "callerRateLimit", "maxConcurrentRequests", "maxBodyBytes")


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_a_tenants_settings_name_their_defaults(app: Flask, people: People, role: str) -> None:
    told: Any = Api(app).get("/api/admin/settings", people.make(km=role), "km").json
    limits = app.extensions[EXTENSION].defaults
    assert told == {
        "id": "km",
        "name": "km",
        "status": "active",
        "currencies": [{"code": "BAM", "fractionDigits": 2}],
        "locale": "en",
        "limits": {
            "rateLimit": limits["rate_limit"],
            "callerRateLimit": limits["caller_rate_limit"],
            "maxConcurrentRequests": limits["max_concurrent_requests"],
            "maxBodyBytes": limits["max_body_bytes"],
        },
        "defaults": ["locale", *LIMITS],
    }


def test_what_a_tenant_has_set_is_shown_and_is_no_default(fresh_app: Flask, fresh_database: Database) -> None:
    admin = People(fresh_app).make(eur="admin")
    fresh_database.as_superuser().execute(
        "UPDATE shared.tenants SET settings = settings || %s::jsonb WHERE slug = 'eur'",
        ('{"locale": "bs_BA", "rate_limit": "77/minute", "max_body_bytes": 1234}',),
    )
    told: Any = Api(fresh_app).get("/api/admin/settings", admin, "eur").json
    assert (told["locale"], told["limits"]["rateLimit"], told["limits"]["maxBodyBytes"]) == ("bs_BA", "77/minute", 1234)
    assert told["defaults"] == ["callerRateLimit", "maxConcurrentRequests"]
    me: Any = Api(fresh_app).get("/api/me", admin).json
    assert me["memberships"][0]["locale"] == "bs_BA"
