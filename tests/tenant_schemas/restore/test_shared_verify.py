"""A bundle of the schema shared is verified against all constraints, and nothing stays."""

from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas.restore.shared_verify import verify_shared
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import destination
from tests.factories.installations import take_shared

_SCHEMAS = "SELECT nspname FROM pg_namespace ORDER BY 1"


def test_a_sound_bundle_is_verified_and_leaves_nothing(database: Database, tmp_path: Path) -> None:
    bundle, superuser = take_shared(database, tmp_path), database.as_superuser()
    schemas = superuser.execute(_SCHEMAS).fetchall()
    verified = verify_shared(destination(database), bundle)
    assert (verified.rows, verified.tenants) == (bundle.manifest.rows, len(database.tenants()))
    assert verified.left_out == ()
    assert superuser.execute(_SCHEMAS).fetchall() == schemas


def test_a_row_without_its_parent_is_found(fresh_database: Database, tmp_path: Path) -> None:
    superuser = fresh_database.as_superuser()
    key = superuser.execute(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'products_category_id_fkey'"
    )
    ((definition,),) = key.fetchall()
    superuser.execute("ALTER TABLE shared.products DROP CONSTRAINT products_category_id_fkey")
    superuser.execute("INSERT INTO shared.products (category_id, sku, name) VALUES (gen_random_uuid(), 'x', 'x')")
    bundle = take_shared(fresh_database, tmp_path)
    superuser.execute("DELETE FROM shared.products")
    superuser.execute(f"ALTER TABLE shared.products ADD CONSTRAINT products_category_id_fkey {definition}".encode())
    with pytest.raises((SQLAlchemyError, psycopg.Error), match="products_category_id_fkey"):
        verify_shared(destination(fresh_database), bundle)
