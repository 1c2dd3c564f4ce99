"""The objects in the database: the owner owns all of the installation, functions with the owner's rights pin their
search_path, triggers and constraints are in force, and no extension reaches out of PostgreSQL. An extension is one
finding, not one for each of its functions.
"""

from collections.abc import Iterator

from tenant_schemas.doctor.finding import Finding, Installation, error, warning
from tenant_schemas.tenant import SHARED_SCHEMA

# These read files, connect to other servers or run programs.
_UNSAFE_EXTENSIONS = r"^(dblink|postgres_fdw|file_fdw|adminpack|pldbgapi|plpython.*|plperlu|pltclu|plsh)$"


def check(installation: Installation) -> Iterator[Finding]:
    yield from _check_owners(installation)
    yield from _check_functions(installation)
    yield from _check_enforcement(installation)
    yield from _check_extensions(installation)
    yield from _check_unexpected_objects(installation)


def _check_owners(installation: Installation) -> Iterator[Finding]:
    query = """
        SELECT pg_describe_object(o.class, o.oid, 0) AS name, o.owner::regrole::text AS owner
        FROM pg_namespace n CROSS JOIN LATERAL (
            SELECT 'pg_namespace'::regclass, n.oid, n.nspowner
            UNION ALL SELECT 'pg_class'::regclass, oid, relowner FROM pg_class
                WHERE relnamespace = n.oid AND relkind NOT IN ('i', 'I', 'c')
            UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc WHERE pronamespace = n.oid
            UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type
                WHERE typnamespace = n.oid AND typrelid = 0 AND typelem = 0
            UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner FROM pg_operator WHERE oprnamespace = n.oid
            UNION ALL SELECT 'pg_collation'::regclass, oid, collowner FROM pg_collation WHERE collnamespace = n.oid
        ) AS o (class, oid, owner)
        WHERE n.nspname = ANY(%(schemas)s) AND o.owner <> to_regrole(%(owner)s)
            -- The members of an extension belong to the role that PostgreSQL made it with.
            AND NOT EXISTS (SELECT FROM pg_depend d
                WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e')"""
    for name, owner in installation.rows(query, schemas=_our_schemas(installation), owner=installation.roles.owner):
        remedy = f"ALTER {name} OWNER TO {installation.roles.owner};"
        yield error("owner", name, f"its owner is {owner}, not {installation.roles.owner}", remedy)


def _check_functions(installation: Installation) -> Iterator[Finding]:
    """A SECURITY DEFINER function whose search_path the caller can choose gives the caller the owner's rights."""
    query = r"""
        SELECT p.oid::regprocedure::text AS name, p.prosecdef,
            l.lanpltrusted OR l.lanname = 'sql' OR EXISTS (SELECT FROM pg_depend d
                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e') AS is_trusted,
            (SELECT substr(setting, length('search_path=') + 1) FROM unnest(p.proconfig) AS setting
                WHERE setting ~ '^search_path=') AS path,
            quote_ident(n.nspname) AS schema_name
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND (p.prosecdef OR n.nspname = ANY(%(schemas)s))
        ORDER BY 1"""
    for row in installation.rows(query, schemas=_our_schemas(installation)):
        if row.prosecdef and not _is_pinned(row.path, row.schema_name):
            path = f"with the unsafe search_path {row.path}" if row.path else "without a search_path"
            remedy = f"ALTER FUNCTION {row.name} SET search_path TO {row.schema_name}, pg_temp;"
            yield error("definer_path", f"function {row.name}", f"SECURITY DEFINER {path}", remedy)
        if not row.is_trusted:
            what = "its language is untrusted: it can run any code on the server"
            yield error("language", f"function {row.name}", what, f"DROP ROUTINE {row.name};")


def _is_pinned(path: str | None, schema_name: str) -> bool:
    """Only its own schema or pg_catalog, and pg_temp last: PostgreSQL searches an unnamed pg_temp first."""
    schemas = [name.strip() for name in (path or "").split(",")]
    return schemas in ([schema_name, "pg_temp"], ["pg_catalog", schema_name, "pg_temp"], ["pg_catalog", "pg_temp"])


def _check_enforcement(installation: Installation) -> Iterator[Finding]:
    """Triggers, rules, constraints and indexes that exist but are not in force."""
    query = """
        WITH ours AS (
            SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY(%(schemas)s))
        SELECT 'trigger_off', 'table ' || o.name, 'trigger ' || g.tgname || ' is disabled or has another firing mode',
            format('ALTER TABLE %%s ENABLE TRIGGER %%I;', o.name, g.tgname)
        FROM pg_trigger g JOIN ours o ON o.oid = g.tgrelid WHERE g.tgenabled <> 'O'
        UNION ALL
        SELECT 'rule_off', 'rule ' || r.rulename || ' on ' || o.name, 'it is disabled or has another firing mode',
            format('ALTER TABLE %%s ENABLE RULE %%I;', o.name, r.rulename)
        FROM pg_rewrite r JOIN ours o ON o.oid = r.ev_class WHERE r.ev_enabled <> 'O'
        UNION ALL
        SELECT 'not_valid', 'constraint ' || k.conname || ' on ' || o.name, 'rows older than it were never checked',
            format('ALTER TABLE %%s VALIDATE CONSTRAINT %%I;', o.name, k.conname)
        FROM pg_constraint k JOIN ours o ON o.oid = k.conrelid WHERE NOT k.convalidated
        UNION ALL
        SELECT 'not_valid', 'index ' || o.name, 'it is invalid: queries ignore it, and it may not enforce uniqueness',
            format('REINDEX INDEX %%s;', o.name)
        FROM pg_index i JOIN ours o ON o.oid = i.indexrelid WHERE NOT (i.indisvalid AND i.indisready)"""
    for check, where, what, remedy in installation.rows(query, schemas=_our_schemas(installation)):
        yield error(check, where, what, remedy)


def _check_extensions(installation: Installation) -> Iterator[Finding]:
    query = "SELECT extname, extname ~ %(bad)s FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"
    for name, reaches_out in installation.rows(query, bad=_UNSAFE_EXTENSIONS):
        remedy = f"If it is not needed: DROP EXTENSION {name};"
        if reaches_out:
            what = "through it SQL can read files, reach other servers or run programs"
            yield error("extension", f"extension {name}", what, remedy)
        else:
            what = "the doctor does not check which rights it gives to tenants"
            yield warning("extension", f"extension {name}", what, remedy)
    query = "SELECT lanname FROM pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c') ORDER BY 1"
    for (name,) in installation.rows(query):
        what = "it is untrusted: its functions can run any code on the server"
        yield error("language", f"language {name}", what, "Drop it, or the extension that created it.")


def _check_unexpected_objects(installation: Installation) -> Iterator[Finding]:
    for query, check, what in (
        ("SELECT evtname FROM pg_event_trigger", "event_trigger", "it runs during every migration"),
        ("SELECT srvname FROM pg_foreign_server", "foreign_server", "through it SQL can reach another server"),
        ("SELECT pubname FROM pg_publication", "publication", "replication roles can read its tables"),
        ("SELECT oid::text FROM pg_largeobject_metadata LIMIT 1", "large_object", "it belongs to no schema"),
    ):
        for (name,) in installation.rows(query):
            yield warning(check, f"{check.replace('_', ' ')} {name}", what, "If it is not needed, drop it.")


def _our_schemas(installation: Installation) -> list[str]:
    return [*installation.tenant_schemas, SHARED_SCHEMA]
