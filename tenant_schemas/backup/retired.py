"""Backs up a retired schema that a restore replaced, so that its data can be verified, kept, or restored."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import psycopg

from tenant_schemas.backup.backup import check_and_write
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.introspection import find_registry_row, lock_tables, schema_revision, tables_of
from tenant_schemas.backup.source import Source, translate_errors
from tenant_schemas.backup.staging import remove_abandoned_folders
from tenant_schemas.backup.writer import BackupOptions, TenantSnapshot
from tenant_schemas.errors import NotRetired
from tenant_schemas.migrations.replay import VERSION_TABLE

_RECORD: Final = """
    SELECT t.slug, r.since FROM shared.spare_schemas r JOIN shared.tenants t ON t.id = r.tenant_id
    WHERE r.schema_name = %s AND r.reason = 'replaced'"""
_HAS_REVISION: Final = "SELECT to_regclass(format('%%I.%%I', %s::text, %s::text)) IS NOT NULL"


def back_up_retired(source: Source, schema_name: str, options: BackupOptions) -> Bundle:
    """Write a bundle of the data in a retired schema, with the registry row and the members that its tenant has today.
    Locks its tables ACCESS SHARE. Raises BackupError, or NotRetired if the schema is no replaced schema of a tenant;
    then no bundle is left.
    """
    with translate_errors(schema_name), source.connect(schema_name) as connection:
        slug, retired_at = _find_record(connection, schema_name)
        remove_abandoned_folders(options.folder, slug)
        with _snapshot(connection, source, schema_name, slug, retired_at) as snapshot:
            return check_and_write(connection, source, snapshot, options)


def _find_record(connection: psycopg.Connection[Any], schema_name: str) -> tuple[str, datetime]:
    record = connection.execute(_RECORD, (schema_name,)).fetchone()
    ((has_data,),) = connection.execute(_HAS_REVISION, (schema_name, VERSION_TABLE))
    if record is None or not has_data:
        reason = "no restore replaced it" if record is None else "it only reserves the old name of a renamed tenant"
        raise NotRetired(
            f"Schema {schema_name} has no data to put back: {reason}. "
            "`python -m scripts.drop_retired_schemas --list` names the retired schemas."
        )
    slug, retired_at = record
    return slug, retired_at


@contextmanager
def _snapshot(
    connection: psycopg.Connection[Any], source: Source, schema_name: str, slug: str, retired_at: datetime
) -> Iterator[TenantSnapshot]:
    """A snapshot of the schema with its tables locked against a drop until the block ends. It has no fingerprint: a
    retired schema has lost its rights, which a fingerprint includes.
    """
    tables = tables_of(connection, schema_name, source.backup_policy)
    with source.repeatable_read(connection):
        lock_tables(connection, schema_name, tables, source.backup_policy)
        ((taken_at,),) = connection.execute("SELECT clock_timestamp()")
        row = find_registry_row(connection, slug)
        revision = schema_revision(connection, schema_name) or ""
        yield TenantSnapshot(
            registry_row=replace(row, tenant=replace(row.tenant, schema_name=schema_name, revision=revision)),
            tables=tables,
            fingerprint="",
            exported_id=None,
            taken_at=taken_at,
            retired_at=retired_at,
        )
