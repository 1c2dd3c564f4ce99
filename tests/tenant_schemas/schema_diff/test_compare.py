"""Drift is measured against the history's own schema at the tenant's revision, and the differences are named."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, NullPool, create_engine, make_url

from tenant_schemas import registry, visits
from tenant_schemas.lifecycle.provision import new_tenant
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.roles import become_owner, create_tenant_role, create_tenant_schema
from tenant_schemas.schema_diff.compare import Drift, drifted_objects, find_drift
from tenant_schemas.schema_diff.reference import make_reference
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database, make_tenant
from tests.factories.histories import HEAD, copied_histories
from tests.factories.locks import held_tenant

pytestmark = pytest.mark.both_servers

OLD = "0007"
VERSIONS = "SELECT version_num FROM {}_schema.alembic_version"


def drift_in(database: Database, migrations: Migrations, *statements: str) -> dict[str, list[str]]:
    """The migrator's findings after these statements of a superuser; everything is rolled back."""
    with superuser(database) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION wallet_migrator")
        return drifted_objects(connection, migrations, registry.all_tenants(connection))


def look_and_note(database: Database, migrations: Migrations) -> None:
    with database.admin_engine().begin() as connection:
        assert drifted_objects(connection, migrations, registry.all_tenants(connection)) == {}


def seen_by_backup(database: Database, migrations: Migrations, slug: str) -> Drift:
    with connect(database.url("wallet_backup")) as connection:
        return find_drift(connection, migrations, [registry.get_tenant(connection, slug)])


def superuser(database: Database) -> Connection:
    return connect(database.url())


def connect(url: str) -> Connection:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool).connect()


def make_old_tenant(database: Database, migrations: Migrations, slug: str, recorded_as: str = OLD) -> Tenant:
    """A tenant whose schema has the history's first seven revisions, whatever revision is recorded."""
    tenant = new_tenant(migrations, slug=slug, name=slug, settings={})
    recorded = replace(tenant, revision=recorded_as)
    with database.admin_engine().begin() as connection:
        create_tenant_role(connection, tenant, database.password_of(tenant), migrations.roles)
        become_owner(connection, migrations.roles)
        create_tenant_schema(connection, tenant)
        migrations.upgrade_tenant(connection, tenant, OLD)
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = %s", (recorded_as,))
        registry.add_tenant(connection, recorded)
    return recorded


def test_tenants_as_they_were_made_have_not_drifted(database: Database, tenancy_migrations: Migrations) -> None:
    assert drift_in(database, tenancy_migrations) == {}


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE km_schema.wallets ADD COLUMN nickname text", "column wallets.nickname"),
        ("DROP INDEX km_schema.wallets_opened_at_id_idx", "index wallets_opened_at_id_idx"),
        ("ALTER TABLE km_schema.wallets DISABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "relation wallets"),
        (
            "ALTER TABLE km_schema.audit_log DISABLE TRIGGER audit_log_immutable",
            "trigger audit_log.audit_log_immutable",
        ),
        ("GRANT DELETE ON km_schema.wallets TO tenant_km", "rights on relation wallets"),
        ("ALTER FUNCTION km_schema.refuse_change_v1() SET search_path TO shared", "function refuse_change_v1()"),
    ],
)
def test_the_objects_that_differ_are_named_for_the_tenant_alone(
    database: Database, statement: str, named: str, tenancy_migrations: Migrations
) -> None:
    found = drift_in(database, tenancy_migrations, statement)
    assert list(found) == ["km_schema"]
    assert named in found["km_schema"]


def test_what_all_tenants_have_and_the_history_has_not_is_drift(
    database: Database, tenancy_migrations: Migrations
) -> None:
    statements = [f"ALTER TABLE {slug}_schema.wallets ADD COLUMN nickname text" for slug in ("eur", "km")]
    assert set(drift_in(database, tenancy_migrations, *statements)) == {"eur_schema", "km_schema"}


def test_of_an_extension_its_name_stands_for_its_members(database: Database, tenancy_migrations: Migrations) -> None:
    extension = "CREATE EXTENSION pg_trgm SCHEMA km_schema"
    assert drift_in(database, tenancy_migrations, extension) == {"km_schema": ["extension pg_trgm"]}


def test_a_function_that_was_made_an_extensions_is_missing(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    """Also after an earlier look, whose stamp must not hide it."""
    superuser = fresh_database.as_superuser()
    superuser.execute("CREATE EXTENSION pg_trgm SCHEMA shared")
    look_and_note(fresh_database, tenancy_migrations)
    superuser.execute("ALTER EXTENSION pg_trgm ADD FUNCTION km_schema.refuse_change_v1()")
    found = drift_in(fresh_database, tenancy_migrations)["km_schema"]
    assert found[0] == "extension pg_trgm"
    assert "function refuse_change_v1()" in found


def test_a_copy_of_a_stale_schema_recorded_as_migrated_is_drift(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    """Registry and alembic_version both say head; the objects do not."""
    make_old_tenant(fresh_database, tenancy_migrations, "stale", recorded_as=HEAD)
    found = drift_in(fresh_database, tenancy_migrations)
    assert list(found) == ["stale_schema"]
    assert {"relation audit_chain", "column audit_log.seq"} < set(found["stale_schema"])


def test_a_tenant_behind_is_compared_with_the_history_at_its_own_revision(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    make_old_tenant(fresh_database, tenancy_migrations, "old")
    assert drift_in(fresh_database, tenancy_migrations) == {}
    found = drift_in(fresh_database, tenancy_migrations, "DROP TABLE old_schema.reconciliations CASCADE")
    assert list(found) == ["old_schema"]
    assert "relation reconciliations" in found["old_schema"]


def test_what_the_schema_says_of_its_revision_counts_too(database: Database, tenancy_migrations: Migrations) -> None:
    found = drift_in(database, tenancy_migrations, "UPDATE km_schema.alembic_version SET version_num = '0003'")
    assert found == {"km_schema": [f"alembic_version: 0003, but the registry says {HEAD}"]}


def test_a_schema_that_is_gone_is_drift(fresh_database: Database, tenancy_migrations: Migrations) -> None:
    found = drift_in(fresh_database, tenancy_migrations, "DROP SCHEMA km_schema CASCADE")
    assert list(found) == ["km_schema"]
    assert "Schema km_schema of tenant km is gone" in found["km_schema"][0]


def test_who_may_not_make_the_historys_own_compares_with_the_most_and_says_so(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    """The other tenants are compared too, although only one was requested."""
    make_tenant(fresh_database, tenancy_migrations, "jp", {})
    fresh_database.as_superuser().execute("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    found = seen_by_backup(fresh_database, tenancy_migrations, "km")
    assert found.objects == {"km_schema": ["column wallets.nickname"]}
    assert "owner's rights" in found.unproven[HEAD]


def test_what_was_noted_is_known_to_who_may_not_make_it(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    look_and_note(fresh_database, tenancy_migrations)
    assert seen_by_backup(fresh_database, tenancy_migrations, "km") == Drift({}, {}, {"km_schema": HEAD})
    fresh_database.as_superuser().execute("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    assert seen_by_backup(fresh_database, tenancy_migrations, "km") == Drift(
        {"km_schema": ["column wallets.nickname"]}, {}, {"km_schema": HEAD}
    )


def test_with_a_note_the_most_are_not_right(fresh_database: Database, tenancy_migrations: Migrations) -> None:
    look_and_note(fresh_database, tenancy_migrations)
    for slug in ("eur", "km"):
        fresh_database.as_superuser().execute(f"ALTER TABLE {slug}_schema.wallets ADD COLUMN nickname text")  # type: ignore[arg-type]
    found = seen_by_backup(fresh_database, tenancy_migrations, "km")
    assert (list(found.objects), found.unproven) == (["km_schema"], {})
    assert drift_in(fresh_database, tenancy_migrations)["km_schema"] == ["column wallets.nickname"]


def test_what_was_noted_is_not_made_again(fresh_database: Database, tenancy_migrations: Migrations) -> None:
    """Making it would wait for every session that writes to a table of `shared`."""
    look_and_note(fresh_database, tenancy_migrations)
    holder = fresh_database.as_superuser()
    holder.execute("BEGIN; LOCK TABLE shared.users IN ROW EXCLUSIVE MODE")
    with fresh_database.admin_engine().connect() as connection:
        found = find_drift(connection, tenancy_migrations, registry.all_tenants(connection))
        reference = make_reference(connection, tenancy_migrations, registry.all_tenants(connection), HEAD)
    assert found == Drift({}, {}, {"eur_schema": HEAD, "km_schema": HEAD})
    assert "LockNotAvailable" in (reference.failure or "")


def test_a_note_is_of_the_files_as_they_were(
    fresh_database: Database, tmp_path: Path, tenancy_migrations: Migrations
) -> None:
    """A draft, at least, can change without a new number."""
    look_and_note(fresh_database, tenancy_migrations)
    histories = copied_histories(tmp_path)
    last = next((tmp_path / "migrations" / "tenant").glob(f"{HEAD}_*.sql"))
    last.write_text(last.read_text() + "\nALTER TABLE wallets ADD COLUMN nickname text;\n")
    with fresh_database.admin_engine().connect() as connection:
        found = drifted_objects(connection, histories, registry.all_tenants(connection))
    assert found == {f"{slug}_schema": ["column wallets.nickname"] for slug in ("eur", "km")}


def test_a_revision_that_the_history_has_not_is_unproven(database: Database, tenancy_migrations: Migrations) -> None:
    with superuser(database) as connection:
        connection.exec_driver_sql("UPDATE shared.tenants SET revision = '9999' WHERE slug = 'km'")
        found = find_drift(connection, tenancy_migrations, registry.all_tenants(connection))
    assert list(found.unproven) == ["9999"]
    assert "9999" in found.unproven["9999"]


def test_looking_leaves_the_db_transaction_as_it_was(
    database: Database, monkeypatch: pytest.MonkeyPatch, tenancy_migrations: Migrations
) -> None:
    """No schema, no lock, no other role or search_path, although it compares one tenant at a time."""
    monkeypatch.setattr(visits, "TENANTS_AT_ONCE", 1)
    state = """
        SELECT current_user, current_setting('search_path'), current_setting('lock_timeout'),
            (SELECT count(*) FROM pg_namespace),
            (SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                WHERE l.pid = pg_backend_pid() AND c.relnamespace <> 'pg_catalog'::regnamespace
                    AND c.relname !~ '^schema_(fingerprints|stamps)')"""
    tenants = database.tenants()
    look_and_note(database, tenancy_migrations)
    with superuser(database) as connection:
        before = connection.exec_driver_sql(state).one()
        assert drifted_objects(connection, tenancy_migrations, tenants) == {}
        assert connection.exec_driver_sql(state).one() == before
    assert before[-1] == 0


def test_a_new_tenant_stamps_no_other(fresh_database: Database, tenancy_migrations: Migrations) -> None:
    """Another tool recorded all tenants as migrated when it made one."""
    old = make_old_tenant(fresh_database, tenancy_migrations, "old")
    make_tenant(fresh_database, tenancy_migrations, "jp", {})
    assert fresh_database.tenant("old") == old
    versions = [fresh_database.as_superuser().execute(VERSIONS.format(slug)).fetchall() for slug in ("old", "jp")]  # type: ignore[arg-type]
    assert versions == [[(OLD,)], [(HEAD,)]]
    assert drift_in(fresh_database, tenancy_migrations) == {}


def test_a_locked_tenant_is_a_failure_and_the_drift_of_the_others_is_found(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    fresh_database.as_superuser().execute("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    with held_tenant(fresh_database, "eur") as pid, fresh_database.admin_engine().begin() as connection:
        tenants = registry.all_tenants(connection)
        found = find_drift(connection, tenancy_migrations, tenants, lock_timeout_ms=50)
    assert found.objects == {"km_schema": ["column wallets.nickname"]}
    assert list(found.failures) == ["eur_schema"]
    assert f"process {pid}" in str(found.failures["eur_schema"])


def test_a_drifted_schema_that_is_locked_after_an_earlier_look_is_a_failure(
    fresh_database: Database, tenancy_migrations: Migrations
) -> None:
    """Its stamp says that it has drifted, but not in which objects."""
    superuser = fresh_database.as_superuser()
    superuser.execute("ALTER TABLE km_schema.wallets ADD COLUMN nickname text")
    superuser.execute("DROP TABLE km_schema.alembic_version")
    with fresh_database.admin_engine().begin() as connection:
        find_drift(connection, tenancy_migrations, registry.all_tenants(connection))
    with held_tenant(fresh_database, "km"), fresh_database.admin_engine().begin() as connection:
        tenants = registry.all_tenants(connection)
        found = find_drift(connection, tenancy_migrations, tenants, lock_timeout_ms=50)
    assert list(found.failures) == ["km_schema"]
