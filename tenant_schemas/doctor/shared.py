"""Tables of `shared` have row-level security, and each policy only compares a column with current_user."""

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Row

from tenant_schemas.doctor.finding import Finding, Installation, error
from tenant_schemas.migrations.history import VERSION_TABLE

_DROP_POLICY = "If no migration made it: DROP POLICY {0} ON shared.{1}; otherwise correct it in a migration."
_WRITE_POLICY = "In a migration of shared: create a policy for each role that may read the table."
# A policy that calls a function or reads a setting or a table can be deceived, or makes a shared table hot.
_PLAIN = re.compile(r"true|false|\(\w+ = CURRENT_USER\)", re.ASCII)
_BOUND = re.compile(r"false|\(\w+ = CURRENT_USER\)", re.ASCII)

# A table has tenants' data if it has a tenant column, or if a chain of foreign keys leads to tenants or users.
_TABLES = """
    WITH RECURSIVE of_tenants (oid) AS (
        SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'shared'::regnamespace AND (
            c.relname IN ('tenants', 'users') OR EXISTS (SELECT FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attname ~ '^tenant(_|$)' AND NOT a.attisdropped))
        UNION
        SELECT f.conrelid FROM pg_constraint f JOIN of_tenants o ON f.confrelid = o.oid WHERE f.contype = 'f'
    )
    SELECT c.oid, c.relname AS name, c.relrowsecurity AS is_guarded,
        c.oid IN (SELECT oid FROM of_tenants) AS has_tenants_data,
        has_any_column_privilege(%(tenants)s, c.oid, 'SELECT, INSERT, UPDATE')
            OR has_table_privilege(%(tenants)s, c.oid, 'DELETE') AS is_shown
    FROM pg_class c WHERE c.relnamespace = 'shared'::regnamespace AND c.relkind IN ('r', 'p', 'f', 'm')
    ORDER BY 2"""
_POLICIES = """
    SELECT quote_ident(p.polname) AS name, p.polrelid, c.relname, p.polpermissive,
        0 = ANY(p.polroles) AS is_publics, to_regrole(%(tenants)s) = ANY(p.polroles) AS is_tenants,
        ARRAY(SELECT r.rolname::text FROM pg_roles r
            WHERE r.oid = ANY(p.polroles) AND r.rolname NOT IN (%(app)s, %(relay)s, %(tenants)s)
            ORDER BY 1) AS other_roles,
        array_remove(ARRAY[pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)], NULL)
            AS conditions
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = 'shared'::regnamespace
    ORDER BY 3, 1"""
_VIEWS = """
    SELECT n.nspname AS schema_name, c.relname AS name, coalesce(c.reloptions, '{}') AS options,
        pg_get_viewdef(c.oid) AS definition, has_any_column_privilege(%(tenants)s, c.oid, 'SELECT') AS is_shown
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'v' AND n.nspname = 'shared' ORDER BY 1, 2"""


def check(installation: Installation) -> Iterator[Finding]:
    tables = installation.rows(_TABLES, tenants=installation.roles.tenants)
    roles = installation.roles
    policies = installation.rows(_POLICIES, tenants=roles.tenants, app=roles.app, relay=roles.relay)
    for table in tables:
        yield from _check_table(table, [policy for policy in policies if policy.polrelid == table.oid])
    for policy in policies:
        yield from _check_policy(policy)
    for view in installation.rows(_VIEWS, tenants=installation.roles.tenants):
        yield from _check_view(view)
    yield from _check_views_of_tenants(installation)


def _check_table(table: Row[Any], policies: list[Row[Any]]) -> Iterator[Finding]:
    where = f"table shared.{table.name}"
    if table.name == VERSION_TABLE and not table.is_shown:
        return
    if not table.is_guarded:
        remedy = f"In a migration: ALTER TABLE shared.{table.name} ENABLE ROW LEVEL SECURITY; and its policies."
        yield error("row_security", where, "row-level security is not enabled", remedy)
    elif not policies:
        yield error("policy_missing", where, "it has no policy, so no role sees its rows", _WRITE_POLICY)
    if not (table.is_shown and table.has_tenants_data):
        return
    of_tenants = [policy for policy in policies if policy.is_tenants or policy.is_publics]
    if not of_tenants:
        yield error("policy_missing", where, "tenants may read it, but it has no policy for them", _WRITE_POLICY)
    for policy in of_tenants:
        if policy.polpermissive and not all(_BOUND.fullmatch(condition) for condition in policy.conditions):
            what = f"policy {policy.name} shows each tenant the rows of other tenants"
            yield error("policy_unbound", where, what, _DROP_POLICY.format(policy.name, table.name))


def _check_policy(policy: Row[Any]) -> Iterator[Finding]:
    where = f"policy {policy.name} on shared.{policy.relname}"
    if policy.is_publics:
        remedy = _DROP_POLICY.format(policy.name, policy.relname)
        yield error("policy_of_public", where, "it applies to every role", remedy)
    if policy.other_roles:
        what = f"it applies to {', '.join(policy.other_roles)}"
        remedy = f"DROP POLICY {policy.name} ON shared.{policy.relname};"
        yield error("policy_of_other_role", where, what, remedy)
    for condition in policy.conditions:
        if not _PLAIN.fullmatch(condition):
            what = f"its condition does more than compare with current_user: {' '.join(condition.split())}"
            yield error("policy_not_plain", where, what, _DROP_POLICY.format(policy.name, policy.relname))


def _check_view(view: Row[Any]) -> Iterator[Finding]:
    """Without security_invoker a view reads with its owner's rights and bypasses row-level security."""
    if not view.is_shown or "security_invoker=true" in view.options:
        return
    where = f"view shared.{view.name}"
    if "security_barrier=true" not in view.options:
        what = "without security_barrier a condition can read the rows that the view hides"
        yield error("view_open", where, what, f"In a migration: ALTER VIEW shared.{view.name} SET (security_barrier);")
    if "CURRENT_USER" not in view.definition:
        remedy = f"Compare with current_user in a migration. If no migration made it: DROP VIEW shared.{view.name};"
        yield error("view_open", where, "it shows each tenant the rows of other tenants", remedy)


def _check_views_of_tenants(installation: Installation) -> Iterator[Finding]:
    query = """
        SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = ANY(%(schemas)s) AND (c.relkind = 'm' OR (c.relkind = 'v'
            AND NOT coalesce(c.reloptions @> '{security_invoker=true}', false))) ORDER BY 1, 2"""
    for schema_name, name, kind in installation.rows(query, schemas=installation.tenant_schemas):
        what = "a materialised view has no row-level security" if kind == "m" else "it reads with its owner's rights"
        remedy = (
            f"If no migration made it: DROP MATERIALIZED VIEW {schema_name}.{name};"
            if kind == "m"
            else f"ALTER VIEW {schema_name}.{name} SET (security_invoker);"
        )
        yield error("view_open", f"view {schema_name}.{name}", what, remedy)
