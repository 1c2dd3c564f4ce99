"""Stamps: whether the catalogue's rows about a schema are the ones of the last full look for drift.

PostgreSQL writes a new version of a row, in another place, whenever the row changes. A stamp is the hash of versions
and places of all rows that a schema's fingerprint is computed from, and of what else decides it: names of roles,
objects of other schemas, the server and its version. A schema with an equal stamp has the same fingerprint. A changed
stamp proves nothing: the fingerprint is computed again. Stamps compare only within one database; a restored or upgraded
one has other stamps.
"""

from collections.abc import Mapping, Sequence, Set
from hashlib import sha256
from typing import Any, Final, LiteralString

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tenant_schemas.schema_diff.catalog import QUERY_HASH
from tenant_schemas.search_path import LEAVE_SCHEMA
from tenant_schemas.tenant import Tenant

# Stamps by schema name.
Stamps = Mapping[str, bytes]

_LOCK_TIMEOUT_MS: Final = 500
_READ_ONLY: Final = "transaction_read_only"
# Returns (schema_name, digest) for the requested schemas, and for those that are no tenant's. It must read each
# catalogue that the fingerprint's query reads, or lets PostgreSQL describe. `version` is the xmin of a row, `place` its
# ctid. Both count: a db transaction that changes a row twice writes one version in two places, and an older transaction
# may commit after a younger one. Rows that VACUUM and ANALYZE update in place describe no object.
_ROWS: Final = """
    WITH ours AS MATERIALIZED (
        SELECT n.oid, n.nspname, n.xmin AS version, n.ctid AS place, n.nspname = ANY(%(schemas)s) AS is_requested
        FROM pg_namespace n WHERE n.nspname = ANY(%(schemas)s) OR NOT (
            n.nspname = ANY(%(known)s) OR starts_with(n.nspname, 'pg_') OR n.nspname = 'information_schema')
    ), owned AS MATERIALIZED (
        SELECT n.oid AS schema, d.classid, d.objid, d.xmin AS version, d.ctid AS place
        FROM ours n JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
    ), relations (schema, oid) AS MATERIALIZED (
        SELECT schema, objid FROM owned WHERE classid = 'pg_class'::regclass
    ), functions (schema, oid) AS MATERIALIZED (
        SELECT schema, objid FROM owned WHERE classid = 'pg_proc'::regclass
    ), types (schema, oid) AS MATERIALIZED (
        SELECT schema, objid FROM owned WHERE classid = 'pg_type'::regclass
    ), indexes (schema, oid, version, place) AS MATERIALIZED (
        SELECT r.schema, i.indexrelid, i.xmin, i.ctid FROM relations r JOIN pg_index i ON i.indrelid = r.oid
    ), constraints (schema, oid, version, place) AS MATERIALIZED (
        SELECT r.schema, k.oid, k.xmin, k.ctid FROM relations r JOIN pg_constraint k ON k.conrelid = r.oid
        UNION ALL
        SELECT t.schema, k.oid, k.xmin, k.ctid FROM types t JOIN pg_constraint k ON k.contypid = t.oid
    ), commented (schema, oid) AS (
        TABLE relations UNION ALL TABLE functions UNION ALL SELECT schema, oid FROM indexes
        UNION ALL SELECT schema, oid FROM constraints
    ), found (schema, catalogue, version, place) AS (
        SELECT oid, 1, version, place FROM ours
        UNION ALL SELECT schema, 2, version, place FROM owned
        UNION ALL SELECT schema, 3, version, place FROM indexes
        UNION ALL SELECT schema, 4, version, place FROM constraints
        UNION ALL SELECT r.schema, 5, c.xmin, c.ctid
            FROM (TABLE relations UNION ALL SELECT schema, oid FROM indexes) r JOIN pg_class c ON c.oid = r.oid
        UNION ALL SELECT r.schema, 6, a.xmin, a.ctid FROM relations r
            JOIN pg_attribute a ON a.attrelid = r.oid AND (a.attnum > 0 OR a.attacl IS NOT NULL)
        UNION ALL SELECT r.schema, 7, d.xmin, d.ctid FROM relations r JOIN pg_attrdef d ON d.adrelid = r.oid
        -- A foreign key of any tenant has triggers on a table of `shared`.
        UNION ALL SELECT r.schema, 8, g.xmin, g.ctid FROM relations r
            JOIN ours n ON n.oid = r.schema AND n.is_requested JOIN pg_trigger g ON g.tgrelid = r.oid
        UNION ALL SELECT r.schema, 9, p.xmin, p.ctid FROM relations r JOIN pg_policy p ON p.polrelid = r.oid
        UNION ALL SELECT r.schema, 10, w.xmin, w.ctid FROM relations r JOIN pg_rewrite w ON w.ev_class = r.oid
        UNION ALL SELECT r.schema, 11, s.xmin, s.ctid FROM relations r JOIN pg_sequence s ON s.seqrelid = r.oid
        UNION ALL SELECT f.schema, 12, p.xmin, p.ctid FROM functions f JOIN pg_proc p ON p.oid = f.oid
        UNION ALL SELECT t.schema, 13, y.xmin, y.ctid FROM types t JOIN pg_type y ON y.oid = t.oid
        UNION ALL SELECT t.schema, 14, e.xmin, e.ctid FROM types t JOIN pg_enum e ON e.enumtypid = t.oid
        UNION ALL SELECT o.schema, 15, x.xmin, x.ctid FROM owned o
            JOIN pg_statistic_ext x ON x.oid = o.objid AND o.classid = 'pg_statistic_ext'::regclass
        UNION ALL SELECT c.schema, 16, d.xmin, d.ctid FROM commented c JOIN pg_description d ON d.objoid = c.oid
    ), others (schema, words) AS (
        SELECT schema, string_agg(pg_describe_object(classid, objid, 0), '|' ORDER BY classid, objid) FROM owned
        WHERE classid NOT IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass,
            'pg_constraint'::regclass, 'pg_statistic_ext'::regclass)
        GROUP BY schema
    )
    SELECT n.nspname, concat_ws(' ', n.oid, f.digest, o.words) FROM ours n JOIN (
        SELECT schema, concat_ws(' ', count(*), sum(hash_record_extended(ROW(version, place), catalogue))) AS digest
        FROM found GROUP BY schema) f ON f.schema = n.oid
    LEFT JOIN others o ON o.schema = n.oid"""
# What decides every fingerprint. A transaction id is used again after four thousand million others: a stamp ends after
# one thousand million at most. 16384 is the first object id that PostgreSQL does not use itself.
_CONTEXT: Final = """
    SELECT concat_ws(' ', (SELECT system_identifier FROM pg_control_system()), current_setting('server_version'),
        (SELECT oid FROM pg_database WHERE datname = current_database()),
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint >> 30,
        (SELECT sum(hash_record_extended(ROW(oid, rolname), 0)) FROM pg_roles WHERE rolname <> ALL(%(roles)s)),
        (SELECT concat_ws(' ', count(*), sum(hash_record_extended(ROW(o.version, o.place), o.catalogue))) FROM (
            SELECT 1, xmin, ctid FROM pg_language
            UNION ALL SELECT 2, xmin, ctid FROM pg_extension
            UNION ALL SELECT 3, xmin, ctid FROM pg_am
            UNION ALL SELECT 4, xmin, ctid FROM pg_operator WHERE oid >= 16384
            UNION ALL SELECT 5, xmin, ctid FROM pg_opclass WHERE oid >= 16384
            UNION ALL SELECT 6, xmin, ctid FROM pg_opfamily WHERE oid >= 16384
            UNION ALL SELECT 7, xmin, ctid FROM pg_collation WHERE oid >= 16384
            UNION ALL SELECT 8, xmin, ctid FROM pg_conversion WHERE oid >= 16384
            UNION ALL SELECT 9, xmin, ctid FROM pg_ts_config WHERE oid >= 16384
            UNION ALL SELECT 10, xmin, ctid FROM pg_ts_dict WHERE oid >= 16384
            UNION ALL SELECT 11, xmin, ctid FROM pg_ts_parser WHERE oid >= 16384
            UNION ALL SELECT 12, xmin, ctid FROM pg_ts_template WHERE oid >= 16384
            UNION ALL SELECT 13, xmin, ctid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass
        ) AS o (catalogue, version, place)))"""
# Above this share of all schemas one pass over each catalogue costs less than a look-up for each object.
_MOST: Final = 0.2
_METHOD: Final = repr((QUERY_HASH, _ROWS, _CONTEXT))
_NAMES: Final = """
    SELECT schema_name, role_name FROM shared.tenants
    UNION ALL
    SELECT schema_name, role_name FROM shared.spare_schemas"""
_ROLES: Final = "SELECT rolname, oid FROM pg_roles WHERE rolname = ANY(%s)"


def stamps_of(connection: Connection, tenants: Sequence[Tenant]) -> dict[str, bytes]:
    """The stamp of each existing schema, for fingerprints that are computed after this call. None if this login may not
    read the stored ones, or `shared` does not have the table yet. Leaves the db transaction bound to no schema.
    """
    if not tenants or not _has_rights(connection, "SELECT"):
        return {}
    schemas = {tenant.schema_name for tenant in tenants}
    names = connection.exec_driver_sql(_NAMES).all()
    known = schemas | {row.schema_name for row in names}
    roles = {tenant.role_name for tenant in tenants} | {row.role_name for row in names if row.role_name}
    digests = _digests(connection, schemas, known)
    context = connection.exec_driver_sql(_CONTEXT, {"roles": sorted(roles)}).scalar_one()
    common = repr((_METHOD, context, sorted((name, digests[name]) for name in digests.keys() - schemas)))
    role_oids = {str(name): oid for name, oid in connection.exec_driver_sql(_ROLES, (sorted(roles),))}
    return {
        tenant.schema_name: _hash(common, digests[tenant.schema_name], tenant, role_oids.get(tenant.role_name))
        for tenant in tenants
        if tenant.schema_name in digests
    }


def stored_fingerprints(connection: Connection, stamps: Stamps) -> dict[str, str]:
    """The fingerprints of the schemas whose stamps are the stored ones."""
    query = "SELECT schema_name, stamp, fingerprint FROM shared.schema_stamps WHERE schema_name = ANY(%s)"
    rows = connection.exec_driver_sql(query, (list(stamps),)).all() if stamps else []
    return {str(name): str(fingerprint) for name, stamp, fingerprint in rows if bytes(stamp) == stamps[name]}


def store_stamps(connection: Connection, stamps: Stamps, fingerprints: Mapping[str, str]) -> None:
    """Store the fingerprints with the stamps that were taken before them, within the open db transaction, and remove
    those of schemas that are no tenant's. Does nothing if this login may not, or another session is storing them.
    """
    names = sorted(stamps.keys() & fingerprints.keys())
    if not names or not _has_rights(connection, "INSERT, UPDATE, DELETE") or _setting(connection, _READ_ONLY) == "on":
        return
    lock_timeout = _setting(connection, "lock_timeout")
    savepoint = connection.begin_nested()
    try:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {_LOCK_TIMEOUT_MS}")
        connection.exec_driver_sql(
            "INSERT INTO shared.schema_stamps AS s (schema_name, stamp, fingerprint)"
            " SELECT * FROM unnest(%s::text[], %s::bytea[], %s::text[])"
            " ON CONFLICT (schema_name) DO UPDATE SET stamp = excluded.stamp, fingerprint = excluded.fingerprint",
            (names, [stamps[name] for name in names], [fingerprints[name] for name in names]),
        )
        connection.exec_driver_sql(
            "DELETE FROM shared.schema_stamps s"
            " WHERE NOT EXISTS (SELECT FROM shared.tenants t WHERE t.schema_name = s.schema_name)"
        )
        connection.exec_driver_sql(f"SET LOCAL lock_timeout TO '{lock_timeout}'")
    except DBAPIError:
        savepoint.rollback()
    else:
        savepoint.commit()


def _digests(connection: Connection, schemas: Set[str], known: Set[str]) -> dict[str, str]:
    # The planner expects too few rows of each catalogue, in either case.
    off = "enable_nestloop" if len(schemas) > _MOST * len(known) else "enable_seqscan"
    connection.exec_driver_sql(f"{LEAVE_SCHEMA}; SET LOCAL jit TO off; SET LOCAL {off} TO off")
    rows = connection.exec_driver_sql(_ROWS, {"schemas": sorted(schemas), "known": sorted(known)})
    return {str(name): str(digest) for name, digest in rows}


def _hash(common: str, digest: str, tenant: Tenant, role_oid: Any) -> bytes:
    return sha256(repr((common, digest, tenant.schema_name, tenant.role_name, role_oid)).encode()).digest()


def _has_rights(connection: Connection, rights: str) -> bool:
    query: LiteralString = """
        SELECT coalesce(bool_and(has_table_privilege(to_regclass('shared.schema_stamps'), r)), false)
        FROM unnest(%s::text[]) AS r"""
    return bool(connection.exec_driver_sql(query, (rights.split(", "),)).scalar_one())


def _setting(connection: Connection, name: str) -> str:
    return str(connection.exec_driver_sql("SELECT current_setting(%s)", (name,)).scalar_one())
