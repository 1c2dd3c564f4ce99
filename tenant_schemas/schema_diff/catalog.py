"""Describes every object of a tenant's schema, as PostgreSQL does, but without the schema's own name.

The functions need an open db transaction of SQLAlchemy or psycopg, and leave it bound to no schema.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, LiteralString

from sqlalchemy import Connection

from tenant_schemas.search_path import LEAVE_SCHEMA
from tenant_schemas.sessions import AnyConnection
from tenant_schemas.tenant import Tenant

Objects = Mapping[tuple[str, str], str]

# Returns (schema_name, kind, name, words) for each object of each schema; `words` is its description. The pattern `own`
# removes the schema's name from PostgreSQL's text, and the tenant's role is written as 'the tenant'. Objects are found
# through pg_depend, which has an index by schema, so one schema among thousands costs as much as one alone. Of an
# extension its name stands for all of its members.
_OBJECTS: Final = r"""
    WITH ours AS (
        SELECT n.oid, n.nspname, n.nspacl, n.nspowner, t.role_name,
            CASE WHEN quote_ident(n.nspname) = n.nspname THEN '\m' ELSE '' END || quote_ident(n.nspname) || '\.' AS own,
            'SET search_path TO ''' || n.nspname || '''' AS own_path
        FROM pg_namespace n JOIN unnest(%(schemas)s::text[], %(roles)s::text[]) AS t (schema_name, role_name)
            ON t.schema_name = n.nspname
    ), members AS MATERIALIZED (
        SELECT classid, objid, refobjid AS extension FROM pg_depend
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
    ), placed AS MATERIALIZED (
        SELECT n.*, d.classid, d.objid,
            CASE d.classid WHEN 'pg_extension'::regclass THEN d.objid ELSE m.extension END AS extension
        FROM ours n JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
        LEFT JOIN members m ON m.classid = d.classid AND m.objid = d.objid
    ), owned AS MATERIALIZED (
        SELECT * FROM placed WHERE extension IS NULL
    ), relations AS MATERIALIZED (
        SELECT n.nspname, n.own, n.role_name, c.oid, c.relname, c.relkind, c.relpersistence, c.relowner,
            c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relispartition, c.reloptions, c.relacl
        FROM owned n JOIN pg_class c ON c.oid = n.objid WHERE n.classid = 'pg_class'::regclass
    ), functions AS MATERIALIZED (
        SELECT n.nspname, n.own, n.own_path, n.role_name, p.oid, p.prokind, p.prosrc, p.proacl, p.proowner
        FROM owned n JOIN pg_proc p ON p.oid = n.objid WHERE n.classid = 'pg_proc'::regclass
    ), described (schema_name, kind, name, words) AS (
        SELECT nspname, 'relation', relname::text, concat_ws(' ', relkind, relpersistence, relrowsecurity,
            relforcerowsecurity, relreplident, relispartition, reloptions::text, obj_description(oid, 'pg_class'),
            CASE WHEN relkind IN ('v', 'm') THEN regexp_replace(pg_get_viewdef(oid), own, '.', 'g') END)
        FROM relations
        UNION ALL
        SELECT c.nspname, 'column', c.relname || '.' || a.attname, concat_ws(' ',
            row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
            regexp_replace(format_type(a.atttypid, a.atttypmod), c.own, '.', 'g'), a.attnotnull, a.attidentity,
            a.attgenerated, a.attstorage, a.attcompression, a.attcollation, a.attstattarget,
            (SELECT string_agg(o, ' ') FROM unnest(a.attoptions) AS o WHERE o ~ '^n_distinct'),
            regexp_replace(pg_get_expr(d.adbin, d.adrelid), c.own, '.', 'g'), col_description(c.oid, a.attnum))
        FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        UNION ALL
        SELECT o.nspname, 'constraint', o.prefix || k.conname, concat_ws(' ', k.contype,
            k.convalidated, regexp_replace(pg_get_constraintdef(k.oid), o.own, '.', 'g'),
            obj_description(k.oid, 'pg_constraint'))
        FROM (
            SELECT c.nspname, c.own, c.relname || '.', k.oid FROM relations c JOIN pg_constraint k ON k.conrelid = c.oid
            UNION ALL
            SELECT n.nspname, n.own, '', k.oid FROM owned n JOIN pg_constraint k ON k.contypid = n.objid
            WHERE n.classid = 'pg_type'::regclass
        ) AS o (nspname, own, prefix, oid) JOIN pg_constraint k ON k.oid = o.oid
        UNION ALL
        SELECT c.nspname, 'index', x.relname::text, concat_ws(' ', i.indisvalid, i.indisunique, i.indisprimary,
            i.indisclustered, i.indisreplident, regexp_replace(pg_get_indexdef(x.oid), c.own, '.', 'g'),
            obj_description(x.oid, 'pg_class'))
        FROM relations c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
        UNION ALL
        SELECT c.nspname, 'trigger', c.relname || '.' || coalesce(k.conname, g.tgname), string_agg(concat_ws(' ',
            g.tgenabled, g.tgtype, regexp_replace(g.tgfoid::regproc::text, c.own, ''), CASE WHEN NOT g.tgisinternal
            THEN regexp_replace(pg_get_triggerdef(g.oid), c.own, '.', 'g') END), ', ' ORDER BY g.tgtype, g.tgfoid)
        FROM relations c JOIN pg_trigger g ON g.tgrelid = c.oid LEFT JOIN pg_constraint k ON k.oid = g.tgconstraint
        GROUP BY 1, c.relname, coalesce(k.conname, g.tgname)
        UNION ALL
        SELECT nspname, 'function', regexp_replace(oid::regprocedure::text, own, '', 'g'), concat_ws(' ',
            CASE WHEN prokind = 'a' THEN prosrc ELSE regexp_replace(
                replace(pg_get_functiondef(oid), own_path, 'SET search_path TO ''.'''), own, '.', 'g') END,
            obj_description(oid, 'pg_proc'))
        FROM functions
        UNION ALL
        SELECT c.nspname, 'policy', c.relname || '.' || p.polname, concat_ws(' ', p.polcmd, p.polpermissive,
            replace(p.polroles::regrole[]::text, c.role_name, 'the tenant'),
            regexp_replace(pg_get_expr(p.polqual, p.polrelid), c.own, '.', 'g'),
            regexp_replace(pg_get_expr(p.polwithcheck, p.polrelid), c.own, '.', 'g'))
        FROM relations c JOIN pg_policy p ON p.polrelid = c.oid
        UNION ALL
        SELECT c.nspname, 'rule', c.relname || '.' || r.rulename, concat_ws(' ', r.ev_enabled,
            regexp_replace(pg_get_ruledef(r.oid), c.own, '.', 'g'))
        FROM relations c JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'
        UNION ALL
        SELECT n.nspname, 'type', t.typname::text, concat_ws(' ', t.typtype,
            regexp_replace(format_type(t.typbasetype, t.typtypmod), n.own, '.', 'g'),
            t.typnotnull, regexp_replace(t.typdefault, n.own, '.', 'g'), t.typowner::regrole, t.typacl::text,
            (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
        FROM owned n JOIN pg_type t ON t.oid = n.objid
        WHERE n.classid = 'pg_type'::regclass AND t.typtype IN ('d', 'e', 'r', 'b') AND t.typelem = 0
        UNION ALL
        SELECT c.nspname, 'sequence', c.relname::text, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement,
            s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
        FROM relations c JOIN pg_sequence s ON s.seqrelid = c.oid
        UNION ALL
        SELECT n.nspname, 'statistics', t.stxname::text, regexp_replace(pg_get_statisticsobjdef(t.oid), n.own, '.', 'g')
        FROM owned n JOIN pg_statistic_ext t ON t.oid = n.objid WHERE n.classid = 'pg_statistic_ext'::regclass
        UNION ALL
        SELECT DISTINCT p.nspname, 'extension', x.extname::text, ''
        FROM placed p JOIN pg_extension x ON x.oid = p.extension
        UNION ALL
        SELECT nspname, 'other object', regexp_replace(pg_describe_object(classid, objid, 0), own, '', 'g'), ''
        FROM owned
        WHERE classid NOT IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass,
            'pg_constraint'::regclass, 'pg_statistic_ext'::regclass)
        UNION ALL
        SELECT g.schema_name, 'rights on ' || g.kind, g.name, string_agg(concat_ws(' ', g.grantee, g.privilege,
            g.is_grantable), ', ' ORDER BY g.grantee, g.privilege) FROM (
            SELECT l.nspname AS schema_name, l.kind, l.name, a.privilege_type AS privilege, a.is_grantable,
                CASE WHEN r.rolname = l.role_name THEN 'the tenant' ELSE coalesce(r.rolname, 'PUBLIC') END AS grantee
            FROM (
                SELECT nspname, role_name, 'schema', 'itself', coalesce(nspacl, acldefault('n', nspowner)) FROM ours
                UNION ALL
                SELECT nspname, role_name, 'relation', relname, coalesce(relacl,
                    acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner))
                FROM relations WHERE relkind <> 'c'
                UNION ALL
                SELECT c.nspname, c.role_name, 'column', c.relname || '.' || a.attname, a.attacl
                FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attacl IS NOT NULL
                UNION ALL
                SELECT nspname, role_name, 'function', regexp_replace(oid::regprocedure::text, own, '', 'g'),
                    coalesce(proacl, acldefault('f', proowner))
                FROM functions
            ) AS l (nspname, role_name, kind, name, acl)
            CROSS JOIN LATERAL aclexplode(l.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee) g
        GROUP BY 1, 2, 3
    )"""
_FINGERPRINTS: Final = """
    SELECT schema_name, md5(string_agg(md5(concat_ws('|', kind, name, words)), '' ORDER BY kind, name))
    FROM described GROUP BY 1"""
_FEW_TENANTS: Final = 5
_DESCRIPTIONS: Final = "SELECT kind, name, words FROM described"
# Part of the key of a stored fingerprint: fingerprints of another query are not comparable.
QUERY_HASH: Final = sha256((_OBJECTS + _FINGERPRINTS).encode()).hexdigest()


def objects_of(connection: AnyConnection, tenant: Tenant) -> Objects:
    """The description of each object of the tenant's schema, by kind and name."""
    rows = _described(connection, _DESCRIPTIONS, [tenant])
    return {(str(kind), str(name)): str(description) for kind, name, description in rows}


def fingerprints_of(connection: AnyConnection, tenants: Sequence[Tenant]) -> dict[str, str]:
    """The hash of all descriptions of each existing schema, by schema name. Equal objects have equal fingerprints on
    servers of one major version; other versions may describe them differently.
    """
    return {str(name): str(fingerprint) for name, fingerprint in _described(connection, _FINGERPRINTS, tenants)}


def _described(connection: AnyConnection, selection: LiteralString, tenants: Sequence[Tenant]) -> list[tuple[Any, ...]]:
    execute: Callable[..., Any]
    execute = connection.exec_driver_sql if isinstance(connection, Connection) else connection.execute
    # Without a search_path PostgreSQL writes every schema name. JIT is off, because compiling this query takes longer
    # than running it. For few schemas sequential scans are off: the planner would scan the whole catalogue.
    seqscan = "off" if len(tenants) <= _FEW_TENANTS else "on"
    execute(f"{LEAVE_SCHEMA}; SET LOCAL jit TO off; SET LOCAL enable_seqscan TO {seqscan}")
    names = {
        "schemas": [tenant.schema_name for tenant in tenants],
        "roles": [tenant.role_name for tenant in tenants],
    }
    return [tuple(row) for row in execute(_OBJECTS + selection, names)]
