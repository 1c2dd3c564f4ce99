"""What retired schemas hold: revision, tables, rows and size, to decide whether to put one back or to drop it."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from tenant_schemas.lifecycle.retired_schemas import RetiredSchema
from tenant_schemas.migrations.history import current_revision
from tenant_schemas.visits import LOCK_TIMEOUT_MS, is_lost, releasing_locks, short_reason

# Rows as the last ANALYZE estimated them: counting all rows of a thousand schemas would take minutes.
_TABLES: Final = """
    SELECT count(*), coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint,
        coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
    FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace(%s)
        AND d.classid = 'pg_class'::regclass"""


@dataclass(frozen=True, slots=True)
class RetiredContents:
    """The contents of a retired schema. Without a `revision` it holds no tenant's data; `rows` is an estimate. With a
    `problem` it could not be read.
    """

    revision: str | None = None
    tables: int | None = None
    rows: int | None = None
    bytes: int | None = None
    problem: str | None = None


def contents_of(connection: Connection, retired: RetiredSchema) -> RetiredContents:
    """The contents of a retired schema; waits for the lock of a table for two seconds. The login must be allowed to
    read statistics.
    """
    try:
        with releasing_locks(connection, LOCK_TIMEOUT_MS):
            tables, rows, size = connection.exec_driver_sql(_TABLES, (retired.schema_name,)).one()
            return RetiredContents(current_revision(connection, retired.schema_name), tables, rows, size)
    except SQLAlchemyError as error:
        if is_lost(connection):
            raise
        return RetiredContents(problem=short_reason(error))
