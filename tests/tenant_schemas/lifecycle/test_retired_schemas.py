"""Retired schemas are kept for their retention time and then dropped with their login; a tenant's schema never is."""

from datetime import timedelta
from threading import Thread
from typing import Any

import pytest
import sqlalchemy as sa

from tenant_schemas.doctor import examine
from tenant_schemas.errors import NameRefused, NotRetired
from tenant_schemas.lifecycle.retired_schemas import (
    claim_retired_schema,
    drop_retired_schema,
    drop_retired_schemas,
    record_retired_schema,
)
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.roles import role_exists
from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.factories.retired_schemas import TOMORROW, YESTERDAY, as_owner, make_retired_schema, noted, schemas

pytestmark = pytest.mark.both_servers


def outcomes(database: Database, *names: str) -> dict[str, str | None]:
    return {each.schema_name: each.error for each in drop_retired_schemas(database.admin_engine(), names)}


def test_those_past_their_time_are_dropped_and_the_others_kept(fresh_database: Database) -> None:
    make_retired_schema(fresh_database, "km_old", YESTERDAY)
    make_retired_schema(fresh_database, "km_new", TOMORROW)
    assert outcomes(fresh_database) == {"km_old": None}
    assert noted(fresh_database) == ["km_new"]
    assert {"km_new", "km_schema", "eur_schema"} <= schemas(fresh_database)
    assert "km_old" not in schemas(fresh_database)
    assert_isolated(fresh_database, "km", "eur")


def test_one_is_dropped_by_name_before_its_time_and_its_login_with_it(fresh_database: Database) -> None:
    server = fresh_database.as_superuser()
    server.execute("SET ROLE wallet_migrator")
    server.execute("CREATE ROLE tenant_spare LOGIN")
    server.execute("RESET ROLE")
    make_retired_schema(fresh_database, "km_side", TOMORROW, "tenant_spare")
    server.execute("GRANT USAGE ON SCHEMA km_side TO tenant_spare")
    # The role itself may have done this, and PostgreSQL drops no role with default privileges.
    server.execute("SET ROLE tenant_spare")
    server.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    server.execute("RESET ROLE")
    assert outcomes(fresh_database, "km_side") == {"km_side": None}
    assert "km_side" not in schemas(fresh_database)
    with fresh_database.admin_engine().connect() as connection:
        assert not role_exists(connection, "tenant_spare")


@pytest.mark.parametrize("reason", ["the schema", "the role"])
def test_what_a_tenant_has_is_never_dropped_whatever_is_noted(fresh_database: Database, reason: str) -> None:
    with as_owner(fresh_database) as connection:
        name = "km_schema" if reason == "the schema" else "km_side"
        eur = fresh_database.tenant("eur")
        role = None if reason == "the schema" else "tenant_km"
        record_retired_schema(
            connection, schema_name=name, tenant=eur, reason="replaced", keep=YESTERDAY, role_name=role
        )
    assert "tenant km uses" in str(outcomes(fresh_database)[name])
    assert "km_schema" in schemas(fresh_database)
    assert fresh_database.as_tenant("km").execute("SELECT count(*) FROM wallets").fetchone() == (0,)


@pytest.mark.parametrize("name", ["shared", "public", "pg_catalog", "information_schema", "a b", 'x"; DROP', ""])
def test_a_name_that_is_no_tenants_to_have_is_not_noted_nor_dropped(fresh_database: Database, name: str) -> None:
    with as_owner(fresh_database) as connection, pytest.raises(NameRefused):
        record_retired_schema(
            connection, schema_name=name, tenant=fresh_database.tenant("km"), reason="replaced", keep=YESTERDAY
        )
    fresh_database.as_superuser().execute(
        "INSERT INTO shared.spare_schemas VALUES (%s, gen_random_uuid(), 'km', NULL, 'replaced', now(), now())", (name,)
    )
    assert outcomes(fresh_database)[name] is not None
    assert {"shared", "public"} <= schemas(fresh_database)


def test_a_schema_that_is_noted_nowhere_is_refused(fresh_database: Database) -> None:
    assert "no retired schema" in str(outcomes(fresh_database, "km_schema")["km_schema"])
    assert "km_schema" in schemas(fresh_database)


def test_a_note_of_a_schema_that_was_never_made_is_taken_away(fresh_database: Database) -> None:
    with as_owner(fresh_database) as connection:
        km = fresh_database.tenant("km")
        record_retired_schema(connection, schema_name="km_never", tenant=km, reason="restoring", keep=YESTERDAY)
    assert outcomes(fresh_database) == {"km_never": None}
    assert noted(fresh_database) == []


@pytest.mark.usefixtures("short_pauses")
def test_one_that_fails_stops_no_other(fresh_database: Database) -> None:
    make_retired_schema(fresh_database, "km_busy", YESTERDAY - timedelta(days=1))
    make_retired_schema(fresh_database, "km_idle", YESTERDAY)
    holder = fresh_database.as_superuser()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM km_busy.things")
    found = outcomes(fresh_database)
    assert found["km_idle"] is None
    assert "they are in use" in str(found["km_busy"])
    assert noted(fresh_database) == ["km_busy"]
    holder.execute("ROLLBACK")
    assert outcomes(fresh_database) == {"km_busy": None}


@pytest.mark.usefixtures("short_pauses")
def test_whoever_waits_for_a_busy_table_of_shared_stops_nobody_for_long(fresh_database: Database) -> None:
    """A drop removes triggers from shared.users. A long reader there must not make the drop block all other
    sessions.
    """
    make_retired_schema(fresh_database, "km_old", YESTERDAY)
    reader = fresh_database.as_superuser()
    reader.execute("BEGIN")
    reader.execute("SELECT FROM shared.users")
    others = fresh_database.as_role("wallet_app")
    others.execute("SET statement_timeout TO 1000")
    dropping = drop_retired_schemas(fresh_database.admin_engine())
    found: list[Any] = []
    thread = Thread(target=lambda: found.extend(dropping))
    thread.start()
    while thread.is_alive():
        others.execute("SELECT FROM shared.users")
    thread.join()
    assert "they are in use" in str(found[0].error)


def test_a_spare_that_becomes_a_tenants_can_be_dropped_no_more(fresh_database: Database) -> None:
    make_retired_schema(fresh_database, "km_side", YESTERDAY)
    with as_owner(fresh_database) as taking:
        claim_retired_schema(taking, "km_side")
        with fresh_database.admin_engine().connect() as dropping:
            dropping.exec_driver_sql("SET LOCAL lock_timeout TO 200")
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                drop_retired_schema(dropping, "km_side")
    with as_owner(fresh_database) as again, pytest.raises(NotRetired):
        claim_retired_schema(again, "km_side")
    assert "no retired schema" in str(outcomes(fresh_database, "km_side")["km_side"])
    assert "km_side" in schemas(fresh_database)


def test_the_doctor_knows_spares_and_names_those_that_are_due(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    server = fresh_database.as_superuser()
    server.execute("CREATE ROLE tenant_spare LOGIN")
    try:
        make_retired_schema(fresh_database, "km_new", TOMORROW, "tenant_spare")
        make_retired_schema(fresh_database, "km_old", YESTERDAY)
        with fresh_database.admin_engine().connect() as connection:
            found = {(each.severity.value, each.check, each.where) for each in examine(connection, tenancy_migrations)}
    finally:
        server.execute("DROP ROLE tenant_spare")
    assert ("warning", "retired_schema_due", "schema km_old") in found
    assert not [each for each in found if each[1] == "schema_unregistered" or "km_new" in each[2]]
    assert not [each for each in found if each[1] == "role_unregistered" and "tenant_spare" in each[2]]
