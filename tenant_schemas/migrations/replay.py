"""What is sent to PostgreSQL to take one schema along its history: whole statements, with nothing but literals.

The steps themselves are the same text for every schema. What is made for each is round them: the db transaction, its
path and role, a guard that looks before anything is done, and the notes of what was done.
"""

from collections.abc import Sequence
from typing import Final

from psycopg import sql

from tenant_schemas import search_path
from tenant_schemas.migrations.render import Step
from tenant_schemas.roles import TENANT_ROLE_SETTING, ServiceRoles
from tenant_schemas.tenant import Tenant

VERSION_TABLE: Final = "alembic_version"
# SQLSTATEs of our own (class TS is nobody's): the registry or the schema is not where the plan found it; a check of a
# revision finds something.
PLAN_IS_STALE: Final = "TS001"
CHECK_FINDS: Final = "TS002"


def step_text(step: Step, schema_name: str) -> str:
    """One step that was rendered, noted and checked, each on the schema's path, whatever was done to that before."""
    path = search_path.migration_message(schema_name)
    checks = path + checks_text(step) if step.checks else ""
    return path + version_table(step, schema_name) + step.sql + version_update_text(step, schema_name) + checks


def version_table(step: Step, schema_name: str) -> str:
    """Before the first revision, the table in which Alembic looks; like Alembic's own."""
    if step.before is not None:
        return ""
    text = "CREATE TABLE IF NOT EXISTS {} (version_num varchar(32) NOT NULL, CONSTRAINT {} PRIMARY KEY (version_num));"
    key = sql.Identifier(f"{VERSION_TABLE}_pkc")
    return sql.SQL(text).format(sql.Identifier(schema_name, VERSION_TABLE), key).as_string()


def version_update_text(step: Step, schema_name: str) -> str:
    """Where the schema now is, in its own table, which is written with its schema whatever the step did to the path."""
    table = sql.Identifier(schema_name, VERSION_TABLE)
    if step.before is None:
        return sql.SQL("INSERT INTO {} VALUES ({});").format(table, sql.Literal(step.after)).as_string()
    if step.after is None:
        return sql.SQL("DELETE FROM {};").format(table).as_string()
    return sql.SQL("UPDATE {} SET version_num = {};").format(table, sql.Literal(step.after)).as_string()


def checks_text(step: Step) -> str:
    return "".join(
        f"DO $check$BEGIN IF EXISTS ({check}\n) THEN RAISE EXCEPTION USING ERRCODE = '{CHECK_FINDS}', MESSAGE = "
        + sql.Literal(f"A check of revision {step.revision} finds something: {check}").as_string()
        + "; END IF; END$check$;"
        for check in step.checks
    )


def opening(tenant: Tenant, roles: ServiceRoles, *, lock_timeout_ms: int, statement_timeout_ms: int) -> str:
    """The start of a tenant's db transaction, after BEGIN: who, where, for how long, and the guard.

    It need not wait for the disk: what is lost in a crash is lost whole, and the end of the run waits for all of it.
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
    """Lock the registry's row, and raise unless all is as the plan found it: the path reaches this schema alone, and
    registry and schema say that it is where the steps begin.
    """
    guard = sql.SQL(
        "DO $guard$BEGIN"
        # Asked for its path where no schema of it exists, PostgreSQL would make a temporary one.
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
        unreachable=sql.Literal(f"The search_path does not reach {tenant.schema_name} alone: is it there?"),
        moved=sql.Literal(f"The registry no longer says that {tenant.slug} is at {tenant.revision}: run it again."),
        differs=sql.Literal(
            f"{tenant.schema_name} is not at {tenant.revision}, as the registry says: somebody changed it by hand."
        ),
    ).as_string()


def registry_update_text(tenant: Tenant, revision: str) -> str:
    text = "UPDATE shared.tenants SET revision = {} WHERE id = {};"
    return sql.SQL(text).format(sql.Literal(revision), sql.Literal(str(tenant.id))).as_string()


def steps_text(steps: Sequence[Step], schema_name: str) -> str:
    return "".join(step_text(step, schema_name) for step in steps)
