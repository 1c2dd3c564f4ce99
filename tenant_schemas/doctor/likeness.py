"""Tenants' schemas differ from each other in nothing but their names.

PostgreSQL describes every object of every schema in words, without the schema's own name. Schemas at one revision whose
words are all the same are alike; of those that are not, the most are right, and the others' objects are named.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from tenant_schemas.doctor.finding import Finding, Patient, error
from tenant_schemas.doctor.registered import TENANTS_AT_ONCE
from tenant_schemas.tenant import Tenant

Objects = dict[tuple[str, str], str]

_NAMED_AT_MOST = 20

# The description of each object of each schema: (schema, kind, name, words). `own` takes the schema's name out of what
# PostgreSQL wrote; a role is written as what it is to the tenant.
_OBJECTS = r"""
    WITH ours AS (
        SELECT n.oid, n.nspname, n.nspacl, n.nspowner, t.role_name,
            CASE WHEN quote_ident(n.nspname) = n.nspname THEN '\m' ELSE '' END || quote_ident(n.nspname) || '\.' AS own,
            'SET search_path TO ''' || n.nspname || '''' AS own_path
        FROM pg_namespace n JOIN shared.tenants t ON t.schema_name = n.nspname
        WHERE n.nspname = ANY(%(schemas)s)
    ), relations AS (
        SELECT n.oid AS schema_oid, n.nspname, n.own, n.role_name, c.* FROM ours n
        JOIN (SELECT oid, relname, relnamespace, relkind, relpersistence, relowner, relrowsecurity, relforcerowsecurity,
            relreplident, relispartition, reloptions, relacl FROM pg_class) c ON c.relnamespace = n.oid
    ), described (schema_name, kind, name, words) AS (
        SELECT nspname, 'relation', relname::text, concat_ws(' ', relkind, relpersistence, relrowsecurity,
            relforcerowsecurity, relreplident, relispartition, reloptions::text, obj_description(oid, 'pg_class'),
            CASE WHEN relkind IN ('v', 'm') THEN regexp_replace(pg_get_viewdef(oid), own, '.', 'g') END)
        FROM relations WHERE relkind NOT IN ('i', 'I')
        UNION ALL
        SELECT c.nspname, 'column', c.relname || '.' || a.attname, concat_ws(' ',
            row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
            regexp_replace(format_type(a.atttypid, a.atttypmod), c.own, '.', 'g'), a.attnotnull, a.attidentity,
            a.attgenerated, a.attstorage, a.attcompression, a.attcollation, a.attstattarget,
            (SELECT string_agg(o, ' ') FROM unnest(a.attoptions) AS o WHERE o ~ '^n_distinct'),
            regexp_replace(pg_get_expr(d.adbin, d.adrelid), c.own, '.', 'g'), col_description(c.oid, a.attnum))
        FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relkind NOT IN ('i', 'I')
        UNION ALL
        SELECT n.nspname, 'constraint', coalesce(c.relname || '.', '') || k.conname, concat_ws(' ', k.contype,
            k.convalidated, regexp_replace(pg_get_constraintdef(k.oid), n.own, '.', 'g'),
            obj_description(k.oid, 'pg_constraint'))
        FROM pg_constraint k JOIN ours n ON n.oid = k.connamespace LEFT JOIN relations c ON c.oid = k.conrelid
        UNION ALL
        SELECT c.nspname, 'index', c.relname::text, concat_ws(' ', i.indisvalid, i.indisunique, i.indisprimary,
            i.indisclustered, i.indisreplident, regexp_replace(pg_get_indexdef(c.oid), c.own, '.', 'g'),
            obj_description(c.oid, 'pg_class'))
        FROM relations c JOIN pg_index i ON i.indexrelid = c.oid
        UNION ALL
        SELECT c.nspname, 'trigger', c.relname || '.' || coalesce(k.conname, g.tgname), string_agg(concat_ws(' ',
            g.tgenabled, g.tgtype, regexp_replace(g.tgfoid::regproc::text, c.own, ''), CASE WHEN NOT g.tgisinternal
            THEN regexp_replace(pg_get_triggerdef(g.oid), c.own, '.', 'g') END), ', ' ORDER BY g.tgtype, g.tgfoid)
        FROM relations c JOIN pg_trigger g ON g.tgrelid = c.oid LEFT JOIN pg_constraint k ON k.oid = g.tgconstraint
        GROUP BY 1, c.relname, coalesce(k.conname, g.tgname)
        UNION ALL
        SELECT n.nspname, 'function', regexp_replace(p.oid::regprocedure::text, n.own, '', 'g'), concat_ws(' ',
            CASE WHEN p.prokind = 'a' THEN p.prosrc ELSE regexp_replace(
                replace(pg_get_functiondef(p.oid), n.own_path, 'SET search_path TO ''.'''), n.own, '.', 'g') END,
            obj_description(p.oid, 'pg_proc'))
        FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace
        UNION ALL
        SELECT c.nspname, 'policy', c.relname || '.' || p.polname, concat_ws(' ', p.polcmd, p.polpermissive,
            replace(p.polroles::regrole[]::text, c.role_name, 'the tenant'),
            pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
        FROM relations c JOIN pg_policy p ON p.polrelid = c.oid
        UNION ALL
        SELECT c.nspname, 'rule', c.relname || '.' || r.rulename, concat_ws(' ', r.ev_enabled,
            regexp_replace(pg_get_ruledef(r.oid), c.own, '.', 'g'))
        FROM relations c JOIN pg_rewrite r ON r.ev_class = c.oid AND r.rulename <> '_RETURN'
        UNION ALL
        SELECT n.nspname, 'type', t.typname::text, concat_ws(' ', t.typtype, format_type(t.typbasetype, t.typtypmod),
            t.typnotnull, t.typdefault,
            (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
        FROM pg_type t JOIN ours n ON n.oid = t.typnamespace WHERE t.typtype IN ('d', 'e', 'r', 'b') AND t.typelem = 0
        UNION ALL
        SELECT n.nspname, 'other object', regexp_replace(pg_describe_object(d.classid, d.objid, 0), n.own, '', 'g'), ''
        FROM ours n JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
        WHERE d.classid NOT IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass,
            'pg_constraint'::regclass)
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
                FROM relations WHERE relkind NOT IN ('i', 'I', 'c')
                UNION ALL
                SELECT c.nspname, c.role_name, 'column', c.relname || '.' || a.attname, a.attacl
                FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attacl IS NOT NULL
                UNION ALL
                SELECT n.nspname, n.role_name, 'function', regexp_replace(p.oid::regprocedure::text, n.own, '', 'g'),
                    coalesce(p.proacl, acldefault('f', p.proowner))
                FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace
            ) AS l (nspname, role_name, kind, name, acl)
            CROSS JOIN LATERAL aclexplode(l.acl) a LEFT JOIN pg_roles r ON r.oid = a.grantee) g
        GROUP BY 1, 2, 3
    )"""
_FINGERPRINTS = """
    SELECT schema_name, md5(string_agg(md5(concat_ws('|', kind, name, words)), '' ORDER BY kind, name))
    FROM described GROUP BY 1"""
_WORDS = "SELECT kind, name, words FROM described"


def check(patient: Patient) -> Iterator[Finding]:
    fingerprints = _fingerprints(patient)
    for revision in sorted({tenant.revision for tenant in patient.tenants}):
        alike = [tenant for tenant in patient.tenants if tenant.revision == revision]
        yield from _check_revision(patient, alike, fingerprints)


def _check_revision(patient: Patient, tenants: list[Tenant], fingerprints: dict[str, str]) -> Iterator[Finding]:
    present = [tenant for tenant in tenants if tenant.schema_name in fingerprints]
    if len({fingerprints[tenant.schema_name] for tenant in present}) < 2:  # noqa: PLR2004
        return
    (usual, _), *_ = Counter(fingerprints[tenant.schema_name] for tenant in present).most_common(1)
    model = next(tenant for tenant in present if fingerprints[tenant.schema_name] == usual)
    model_objects = _objects(patient, model)
    for tenant in present:
        if fingerprints[tenant.schema_name] != usual:
            different = _differences(tenant, _objects(patient, tenant), model, model_objects)
            if different:
                yield _finding(tenant, model, different)


def _finding(tenant: Tenant, model: Tenant, different: list[str]) -> Finding:
    shown = different[:_NAMED_AT_MOST]
    more = f" and {len(different) - len(shown)} more" if len(different) > len(shown) else ""
    what = f"it differs from {model.schema_name} in {', '.join(shown)}{more}"
    remedy = "Find out which of the two is right; bring the other to it by hand, as the owner."
    return error("likeness", f"schema {tenant.schema_name}", what, remedy)


def _differences(tenant: Tenant, objects: Objects, model: Tenant, model_objects: Objects) -> list[str]:
    """A schema named like a table or an alias in its views loses more than its own name in its words; so the other
    loses that name too before the two are compared.
    """
    names = [form for one in (tenant, model) for form in (f'"{one.schema_name}".', f"{one.schema_name}.")]

    def words(objects: Objects, key: tuple[str, str]) -> str | None:
        found = objects.get(key)
        for name in names:
            found = found and found.replace(name, ".")
        return found

    keys = sorted(set(chain(objects, model_objects)))
    return [
        f"{kind} {name}" for kind, name in keys if words(objects, (kind, name)) != words(model_objects, (kind, name))
    ]


def _objects(patient: Patient, tenant: Tenant) -> Objects:
    rows = _described(patient, _WORDS, [tenant.schema_name])
    return {(str(kind), str(name)): str(words) for kind, name, words in rows}


def _fingerprints(patient: Patient) -> dict[str, str]:
    schemas = patient.tenant_schemas
    parts = [schemas[start : start + TENANTS_AT_ONCE] for start in range(0, len(schemas), TENANTS_AT_ONCE)]
    return {
        str(name): str(fingerprint) for part in parts for name, fingerprint in _described(patient, _FINGERPRINTS, part)
    }


def _described(patient: Patient, question: str, schemas: list[str]) -> list[tuple[object, ...]]:
    """To describe a view PostgreSQL locks its tables. Going back to a savepoint lets go of them, so that a thousand
    tenants don't fill the server's table of locks.
    """
    savepoint = patient.connection.begin_nested()
    try:
        return [tuple(row) for row in patient.rows(_OBJECTS + question, schemas=schemas)]
    finally:
        savepoint.rollback()
