"""An archived tenant is not served, loses nothing, and comes back whole."""

from collections.abc import Callable

import pytest
from flask import Flask

from tenant_schemas.errors import StatusRefused
from tenant_schemas.lifecycle.archive import archive, resume, suspend, unarchive
from tenant_schemas.registry import set_status
from tenant_schemas.tenant import Tenant, TenantStatus
from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.factories.api import Api
from tests.factories.people import People
from tests.factories.tenants import archive_tenant

pytestmark = [pytest.mark.both_servers, pytest.mark.usefixtures("mark")]


def test_an_archived_tenant_serves_nobody_but_auditors_and_comes_back_whole(
    fresh_app: Flask, fresh_database: Database, own: People
) -> None:
    member, auditor = own.make(mark="member"), own.make(mark="auditor")
    wallet_id = own.wallet(member, "mark", balance_minor=500)
    api = Api(fresh_app)
    archive_tenant(fresh_database)
    assert api.get("/api/wallet", member, "mark").status_code == 404
    assert api.post("/api/wallet/payments", member, "mark", json={"amount": "1.00"}).status_code == 404
    assert api.get(f"/api/admin/wallets/{wallet_id}", auditor, "mark").json["depositBalance"] == "5.00"
    with fresh_database.admin_engine().begin() as connection:
        unarchive(connection, "mark")
    assert api.get("/api/wallet", member, "mark").json["depositBalance"] == "5.00"
    assert_isolated(fresh_database, "mark", "km")


@pytest.mark.parametrize(
    ("status", "move", "is_allowed"),
    [
        (TenantStatus.ACTIVE, archive, True),
        (TenantStatus.SUSPENDED, archive, True),
        (TenantStatus.ARCHIVED, archive, False),
        (TenantStatus.ARCHIVED, unarchive, True),
        (TenantStatus.ACTIVE, unarchive, False),
        (TenantStatus.SUSPENDED, unarchive, False),
        (TenantStatus.ACTIVE, suspend, True),
        (TenantStatus.SUSPENDED, suspend, False),
        (TenantStatus.ARCHIVED, suspend, False),
        (TenantStatus.SUSPENDED, resume, True),
        (TenantStatus.ACTIVE, resume, False),
        (TenantStatus.ARCHIVED, resume, False),
    ],
)
def test_a_status_that_does_not_fit_is_refused_and_named(
    fresh_database: Database, mark: Tenant, status: TenantStatus, move: Callable[..., Tenant], is_allowed: bool
) -> None:
    with fresh_database.admin_engine().begin() as connection:
        set_status(connection, mark.id, status)
        if is_allowed:
            assert move(connection, "mark").status is status
        else:
            with pytest.raises(StatusRefused, match=status):
                move(connection, "mark")
    to = {archive: TenantStatus.ARCHIVED, suspend: TenantStatus.SUSPENDED}
    expected = to.get(move, TenantStatus.ACTIVE) if is_allowed else status
    assert fresh_database.tenant("mark").status is expected
