"""What is in the database: all of ours is the owner's, what runs with the owner's rights can't be led astray, and
nothing is there that reaches out of PostgreSQL.
"""

from collections.abc import Iterator

from tenant_schemas.doctor.finding import Finding, Installation, error, warning
from tenant_schemas.tenant import SHARED_SCHEMA

# They read files, call other servers or run programs.
_REACHING_OUT = r"^(dblink|postgres_fdw|file_fdw|adminpack|pldbgapi|plpython.*|plperlu|pltclu|plsh)$"


def check(installation: Installation) -> Iterator[Finding]:
    yield from _check_owners(installation)
    yield from _check_functions(installation)
    yield from _check_enforcement(installation)
    yield from _check_extensions(installation)
    yield from _check_strangers(installation)


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
        WHERE n.nspname = ANY(%(schemas)s) AND o.owner <> to_regrole(%(owner)s)"""
    for name, owner in installation.rows(query, schemas=_our_schemas(installation), owner=installation.roles.owner):
        remedy = f"ALTER … OWNER TO {installation.roles.owner};"
        yield error("owner", name, f"{owner} owns it", remedy)


def _check_functions(installation: Installation) -> Iterator[Finding]:
    """With the owner's rights and a path of the caller's choosing, a function would be the caller's to abuse."""
    query = r"""
        SELECT p.oid::regprocedure::text AS name, p.prosecdef, l.lanpltrusted OR l.lanname = 'sql' AS is_trusted,
            (SELECT substr(setting, length('search_path=') + 1) FROM unnest(p.proconfig) AS setting
                WHERE setting ~ '^search_path=') AS path,
            quote_ident(n.nspname) AS schema_name
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND (p.prosecdef OR n.nspname = ANY(%(schemas)s))
        ORDER BY 1"""
    for row in installation.rows(query, schemas=_our_schemas(installation)):
        if row.prosecdef and not _is_pinned(row.path, row.schema_name):
            what = (
                f"SECURITY DEFINER with the search_path {row.path}" if row.path else "SECURITY DEFINER without a path"
            )
            remedy = f"ALTER FUNCTION {row.name} SET search_path TO {row.schema_name}, pg_temp;"
            yield error("definer_path", f"function {row.name}", what, remedy)
        if not row.is_trusted:
            what = "it is written in a language that may do anything on the server"
            yield error("language", f"function {row.name}", what, "Drop it.")


def _is_pinned(path: str | None, schema_name: str) -> bool:
    """Its own schema, and pg_temp named and last, for PostgreSQL would otherwise search it first."""
    schemas = [name.strip() for name in (path or "").split(",")]
    return schemas in ([schema_name, "pg_temp"], ["pg_catalog", schema_name, "pg_temp"], ["pg_catalog", "pg_temp"])


def _check_enforcement(installation: Installation) -> Iterator[Finding]:
    """What is there and does nothing: it looks like a guard, in every schema alike, and is none."""
    query = """
        WITH ours AS (
            SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ANY(%(schemas)s))
        SELECT 'trigger_off', 'table ' || o.name, 'trigger ' || g.tgname || ' does not always fire'
        FROM pg_trigger g JOIN ours o ON o.oid = g.tgrelid WHERE g.tgenabled <> 'O'
        UNION ALL
        SELECT 'rule_off', 'rule ' || r.rulename || ' on ' || o.name, 'it does not always apply'
        FROM pg_rewrite r JOIN ours o ON o.oid = r.ev_class WHERE r.ev_enabled <> 'O'
        UNION ALL
        SELECT 'not_valid', 'constraint ' || k.conname || ' on ' || o.name, 'rows that were there may break it'
        FROM pg_constraint k JOIN ours o ON o.oid = k.conrelid WHERE NOT k.convalidated
        UNION ALL
        SELECT 'not_valid', 'index ' || o.name, 'it is not whole, and forbids nothing'
        FROM pg_index i JOIN ours o ON o.oid = i.indexrelid WHERE NOT (i.indisvalid AND i.indisready)"""
    remedies = {"trigger_off": "ALTER TABLE … ENABLE TRIGGER …;", "rule_off": "ALTER TABLE … ENABLE RULE …;"}
    for check, where, what in installation.rows(query, schemas=_our_schemas(installation)):
        yield error(check, where, what, remedies.get(check, "ALTER TABLE … VALIDATE CONSTRAINT …, or REINDEX INDEX …;"))


def _check_extensions(installation: Installation) -> Iterator[Finding]:
    query = "SELECT extname, extname ~ %(bad)s FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"
    for name, reaches_out in installation.rows(query, bad=_REACHING_OUT):
        remedy = f"If nothing of yours needs it: DROP EXTENSION {name};"
        if reaches_out:
            yield error("extension", f"extension {name}", "with it SQL may reach out of this database", remedy)
        else:
            yield warning("extension", f"extension {name}", "what it lets tenants do was not looked at here", remedy)
    query = "SELECT lanname FROM pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c') ORDER BY 1"
    for (name,) in installation.rows(query):
        yield error("language", f"language {name}", "its functions may do anything on the server", "Drop it.")


def _check_strangers(installation: Installation) -> Iterator[Finding]:
    for query, check, what in (
        ("SELECT evtname FROM pg_event_trigger", "event_trigger", "it runs in every migration"),
        ("SELECT srvname FROM pg_foreign_server", "foreign_server", "with it SQL may reach another server"),
        ("SELECT pubname FROM pg_publication", "publication", "who may replicate reads what it publishes"),
        ("SELECT oid::text FROM pg_largeobject_metadata LIMIT 1", "large_object", "no schema owns it"),
    ):
        for (name,) in installation.rows(query):
            yield warning(check, f"{check.replace('_', ' ')} {name}", what, "Drop it if it is not meant.")


def _our_schemas(installation: Installation) -> list[str]:
    return [*installation.tenant_schemas, SHARED_SCHEMA]
