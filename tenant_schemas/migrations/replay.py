"""The SQL text that migrates one schema: complete statements with literals only.

The text of a step is the same for every schema. Around it stands text for one schema: the settings, role and
search_path of the db transaction, a guard that checks the schema first, and the updates of version table and registry.
"""

from collections.abc import Sequence
from typing import Final

from psycopg import sql

from tenant_schemas import search_path
from tenant_schemas.migrations.render import Step
from tenant_schemas.roles import TENANT_ROLE_SETTING, ServiceRoles
from tenant_schemas.tenant import Tenant

VERSION_TABLE: Final = "alembic_version"
# Our own SQLSTATEs, in the unused class TS. PLAN_IS_STALE: registry or schema has changed since the plan was made.
# CHECK_FINDS: a check of a revision returned rows.
PLAN_IS_STALE: Final = "TS001"
CHECK_FINDS: Final = "TS002"


def step_text(step: Step, schema_name: str) -> str:
    """One rendered step, the update of the version table and the step's checks. The search_path is set before the step
    and again before its checks, because a step may change it.
    """
    path = search_path.migration_message(schema_name)
    checks = path + checks_text(step) if step.checks else ""
    return path + version_table_text(step, schema_name) + step.sql + version_update_text(step, schema_name) + checks


def version_table_text(step: Step, schema_name: str) -> str:
    """Creates the version table before the first revision, the same table that Alembic creates."""
    if step.before is not None:
        return ""
    text = "CREATE TABLE IF NOT EXISTS {} (version_num varchar(32) NOT NULL, CONSTRAINT {} PRIMARY KEY (version_num));"
    key = sql.Identifier(f"{VERSION_TABLE}_pkc")
    return sql.SQL(text).format(sql.Identifier(schema_name, VERSION_TABLE), key).as_string()


def version_update_text(step: Step, schema_name: str) -> str:
    """Writes the schema's revision into its version table, by its qualified name because a step may change the
    search_path.
    """
    table = sql.Identifier(schema_name, VERSION_TABLE)
    if step.before is None:
        return sql.SQL("INSERT INTO {} VALUES ({});").format(table, sql.Literal(step.after)).as_string()
    if step.after is None:
        return sql.SQL("DELETE FROM {};").format(table).as_string()
    return sql.SQL("UPDATE {} SET version_num = {};").format(table, sql.Literal(step.after)).as_string()


def checks_text(step: Step) -> str:
    return "".join(
        f"DO $check$BEGIN IF EXISTS ({check}\n) THEN RAISE EXCEPTION USING ERRCODE = '{CHECK_FINDS}', MESSAGE = "
        + sql.Literal(f"A check of revision {step.revision} finds rows: {check}").as_string()
        + "; END IF; END$check$;"
        for check in step.checks
    )


def opening_text(tenant: Tenant, roles: ServiceRoles, *, lock_timeout_ms: int, statement_timeout_ms: int) -> str:
    """The start of a tenant's db transaction, after BEGIN: timeouts, role, search_path and the guard.

    synchronous_commit is off: a crash of the server loses db transactions only as a whole, and the commit at the end of
    the run waits until all of them are on disk.
    """
    return (
        sql.SQL(
            "SET LOCAL synchronous_commit TO off; SET LOCAL lock_timeout TO {}; SET LOCAL statement_timeout TO {};"
            "SET LOCAL ROLE {}; SET LOCAL {} TO {};"
        )
        .format(
            lock_timeout_ms,
            statement_timeout_ms,
            sql.Identifier(roles.owner),
            sql.SQL(TENANT_ROLE_SETTING),
            sql.Literal(tenant.role_name),
        )
        .as_string()
        + search_path.migration_message(tenant.schema_name)
        + _guard(tenant)
    )


def _guard(tenant: Tenant) -> str:
    """Locks the tenant's registry row and raises PLAN_IS_STALE unless the search_path resolves to this schema alone,
    and registry and version table have the revision where the steps begin.
    """
    guard = sql.SQL(
        "DO $guard$BEGIN"
        # current_schemas() would create a temporary schema if no schema of the search_path exists.
        " IF to_regnamespace({name}) IS NULL OR (current_schemas(false))[1] IS DISTINCT FROM {schema}::name"
        " THEN RAISE EXCEPTION USING ERRCODE = {stale}, MESSAGE = {unreachable}; END IF;"
        " PERFORM FROM shared.tenants WHERE id = {id} AND schema_name = {schema} AND role_name = {role}"
        " AND revision = {revision} FOR NO KEY UPDATE;"
        " IF NOT FOUND THEN RAISE EXCEPTION USING ERRCODE = {stale}, MESSAGE = {moved}; END IF;"
        " IF ARRAY(SELECT version_num::text FROM {versions}) <> ARRAY[{revision}]"
        " THEN RAISE EXCEPTION USING ERRCODE = {stale}, MESSAGE = {differs}; END IF; END$guard$;"
    )
    return guard.format(
        name=sql.Literal(sql.Identifier(tenant.schema_name).as_string()),
        schema=sql.Literal(tenant.schema_name),
        stale=sql.Literal(PLAN_IS_STALE),
        id=sql.Literal(str(tenant.id)),
        role=sql.Literal(tenant.role_name),
        revision=sql.Literal(tenant.revision),
        versions=sql.Identifier(tenant.schema_name, VERSION_TABLE),
        unreachable=sql.Literal(
            f"The search_path does not resolve to schema {tenant.schema_name} alone: check that the schema exists."
        ),
        moved=sql.Literal(
            f"The registry no longer says that {tenant.slug} is at revision {tenant.revision}: run migrate again."
        ),
        differs=sql.Literal(
            f"Schema {tenant.schema_name} is not at revision {tenant.revision}, as the registry says: it was changed "
            "by hand. Correct its version table or the registry."
        ),
    ).as_string()


def registry_update_text(tenant: Tenant, revision: str) -> str:
    text = "UPDATE shared.tenants SET revision = {} WHERE id = {};"
    return sql.SQL(text).format(sql.Literal(revision), sql.Literal(str(tenant.id))).as_string()


def steps_text(steps: Sequence[Step], schema_name: str) -> str:
    return "".join(step_text(step, schema_name) for step in steps)
