"""SQL that fails in the second tenant, or when all revisions run in one db transaction, is refused with a way that
works.
"""

import psycopg
import pytest

from tenant_schemas.sql_lint.rules import violations_of
from tenant_schemas.testing.plugin import Database

ONCE_IN_A_DATABASE = [
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    "ALTER EXTENSION pg_trgm UPDATE",
    "DROP EXTENSION pg_trgm",
    "CREATE SCHEMA more",
    "CREATE ROLE reporting",
    "ALTER USER reporting SET work_mem TO '1GB'",
    "CREATE TRUSTED LANGUAGE plperl",
    "CREATE PUBLICATION all_wallets FOR TABLE wallets",
    "CREATE EVENT TRIGGER watch ON ddl_command_start EXECUTE FUNCTION watch()",
    "CREATE FOREIGN DATA WRAPPER far",
    "ALTER SYSTEM SET work_mem TO '1GB'",
    "DO $$BEGIN CREATE EXTENSION pg_trgm; END$$",
    "DO $$BEGIN IF true THEN EXECUTE format('CREATE EXTENSION %I', 'pg_trgm'); END IF; END$$",
]
ADDS_A_VALUE = [
    "ALTER TYPE mood ADD VALUE 'sad'",
    "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'sad' BEFORE 'happy'",
    "DO $$BEGIN EXECUTE 'ALTER TYPE mood ADD VALUE ''sad'''; END$$",
]
ALLOWED = [
    "CREATE TYPE mood AS ENUM ('sad'); ALTER TYPE mood RENAME VALUE 'sad' TO 'gloomy'",
    "ALTER TYPE place ADD ATTRIBUTE value text",
    "CREATE TABLE extension (id uuid PRIMARY KEY, role text)",
    "GRANT CREATE ON SCHEMA shared TO tenants",
    "COMMENT ON TABLE wallets IS 'CREATE EXTENSION pg_trgm; ALTER TYPE mood ADD VALUE ''sad'''",
    "DO $$BEGIN EXECUTE format('GRANT SELECT ON wallets TO %I', 'x'); END$$",
]


@pytest.mark.parametrize("statement", ONCE_IN_A_DATABASE)
def test_an_object_of_the_database_is_made_by_a_shared_revision(statement: str) -> None:
    (found,) = violations_of(statement)
    assert "Make it in a shared revision" in found.rule
    assert violations_of(statement, is_shared=True) == ()


@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize("statement", ADDS_A_VALUE)
def test_no_revision_adds_a_value_to_an_enum(statement: str, is_shared: bool) -> None:
    (found,) = violations_of(statement, is_shared=is_shared)
    assert "text with a CHECK, or make a new type" in found.rule


@pytest.mark.parametrize("statement", ALLOWED)
def test_what_only_looks_like_it_is_allowed(statement: str) -> None:
    assert violations_of(statement) == ()


@pytest.mark.both_servers
def test_the_way_that_the_rule_names_works_in_one_db_transaction(database: Database) -> None:
    """And the refused one does not, in a schema that exists already, as after a restore."""
    with psycopg.connect(database.url()) as superuser:
        superuser.execute("CREATE SCHEMA moods")
        superuser.execute("SET search_path TO moods")
        superuser.execute("CREATE TYPE mood AS ENUM ('happy')")
        superuser.execute("CREATE TABLE days (id uuid PRIMARY KEY, mood mood)")
        superuser.commit()
        try:
            superuser.execute("ALTER TYPE mood ADD VALUE 'sad'")
            with pytest.raises(psycopg.errors.UnsafeNewEnumValueUsage):
                superuser.execute("INSERT INTO days VALUES (gen_random_uuid(), 'sad')")
            superuser.rollback()
            superuser.execute("CREATE TYPE mood_2 AS ENUM ('happy', 'sad')")
            superuser.execute("ALTER TABLE days ALTER COLUMN mood TYPE mood_2 USING mood::text::mood_2")
            superuser.execute("INSERT INTO days VALUES (gen_random_uuid(), 'sad')")
        finally:
            superuser.rollback()
            superuser.execute("DROP SCHEMA moods CASCADE")
