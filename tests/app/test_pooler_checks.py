"""The doctor warns of a PgBouncer whose pools may use up the server's connections."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.pooler_checks import pooler_findings
from app.tenancy import MIGRATIONS
from tenant_schemas.doctor import Finding, examine
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for
from tests.factories.pgbouncer import needs_pgbouncer, running_pgbouncer

pytestmark = needs_pgbouncer
MANY = 1_000


def found(database: Database, **changed: Any) -> list[Finding]:
    with database.admin_engine().connect() as connection:
        return list(pooler_findings(connection, MANY, settings_for(database, **changed)))


def test_the_guides_pooler_is_sound_and_so_is_none(database: Database, tmp_path: Path) -> None:
    with running_pgbouncer(tmp_path, database) as url:
        assert found(database, database_url=url) == []
        with sa.create_engine(database.url(), poolclass=sa.NullPool).connect() as superuser:
            assert [each for each in examine(superuser, MIGRATIONS) if "pgbouncer" in f"{each}"] == []
    assert found(database) == []


def test_pools_without_a_limit_are_a_finding_unless_tenants_share_one(database: Database, tmp_path: Path) -> None:
    with running_pgbouncer(tmp_path, database, max_db_connections=None) as url:
        (finding,) = found(database, database_url=url)
        assert finding.what.startswith("its 1001 pools, one for each login, may open 5005 connections; the server ")
        assert found(database, database_url=url, tenant_logins="shared") == []


def test_limits_that_can_not_be_read_are_a_finding(database: Database, tmp_path: Path) -> None:
    with running_pgbouncer(tmp_path, database, stats_users=None) as url:
        (finding,) = found(database, database_url=url)
    assert "stats_users = wallet_app" in finding.remedy
