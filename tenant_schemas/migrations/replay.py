"""The SQL text that migrates one schema: complete statements with literals only.

The text of a step is the same for every schema. Around it stands text for one schema: the settings, role and
search_path of the db transaction, a call of `shared.migration_begin_v1`, which checks the schema and writes its version
table, and a call of `shared.migration_done_v1`, which writes registry and journal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas import search_path
from tenant_schemas.migrations.render import Step
from tenant_schemas.roles import TENANT_ROLE_SETTING, ServiceRoles, send
from tenant_schemas.sql_lint.lexer import statements_of
from tenant_schemas.tenant import Tenant

VERSION_TABLE: Final = "alembic_version"
# Our own SQLSTATE, in the unused class TS: a check of a revision returned rows. TS001 is that of migration_begin_v1.
CHECK_FINDS: Final = "TS002"


@dataclass(frozen=True, slots=True)
class Part:
    """Complete statements of a message: those of one revision, or those around the revisions."""

    text: str
    revision: str | None = None


def change_text(step: Step, schema_name: str) -> str:
    """One rendered step and its checks. The search_path is set before the step and again before its checks, because a
    step may change it.
    """
    path = search_path.migration_message(schema_name)
    return path + step.sql + (path + checks_text(step) if step.checks else "")


def step_text(step: Step, schema_name: str) -> str:
    """One rendered step, the update of the version table and the step's checks."""
    return (
        version_table_text(step, schema_name) + change_text(step, schema_name) + version_update_text(step, schema_name)
    )


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


def opening_text(
    tenant: Tenant, roles: ServiceRoles, *, target: str, lock_timeout_ms: int, statement_timeout_ms: int
) -> str:
    """The start of a tenant's db transaction, after BEGIN: timeouts, role, search_path and the guard. The guard writes
    `target` into the version table: the tenant's present revision, if the steps write the table themselves.

    synchronous_commit is off: a crash of the server loses db transactions only as a whole, and the commit at the end of
    the run waits until all of them are on disk.
    """
    settings = (
        f"SET LOCAL synchronous_commit TO off; SET LOCAL lock_timeout TO {lock_timeout_ms};"
        f"SET LOCAL statement_timeout TO {statement_timeout_ms}; SET LOCAL ROLE {_identifier(roles.owner)};"
        f"SET LOCAL {TENANT_ROLE_SETTING} TO {_literal(tenant.role_name)};"
    )
    return settings + search_path.migration_message(tenant.schema_name) + _guard(tenant, target)


def _guard(tenant: Tenant, target: str) -> str:
    """Raises TS001 unless the search_path resolves to this schema alone, and registry and version table have the
    revision where the steps begin.
    """
    # current_schemas() would create a temporary schema if no schema of the search_path exists.
    bound = (
        f"CASE WHEN to_regnamespace({_literal(_identifier(tenant.schema_name))}) IS NOT NULL"
        " THEN (current_schemas(false))[1]::text END"
    )
    names = (str(tenant.id), tenant.slug, tenant.schema_name, tenant.role_name, tenant.revision, target)
    return f"SELECT shared.migration_begin_v1({bound},{','.join(map(_literal, names))});"


def done_text(run_id: UUID | None, tenant: Tenant, target: str) -> str:
    """The end of a tenant's db transaction, before COMMIT: registry and, for a run on record, journal."""
    run = _literal(str(run_id)) if run_id else "NULL"
    return f"SELECT shared.migration_done_v1({run},{_literal(str(tenant.id))},{_literal(target)});"


def changes_of(steps: Sequence[Step], schema_name: str) -> list[Part]:
    """The steps for a schema whose version table has their end already."""
    return [Part(change_text(step, schema_name), step.revision) for step in steps]


def parts_of(steps: Sequence[Step], schema_name: str) -> list[Part]:
    """The steps, each with the update of the version table."""
    return [Part(step_text(step, schema_name), step.revision) for step in steps]


def send_parts(connection: Connection, parts: Sequence[Part]) -> None:
    """Send the parts as one message. Raises psycopg's errors, with a note that names the revision and the statement."""
    send(connection, "".join(part.text for part in parts), partial(_note_place, parts))


def _note_place(parts: Sequence[Part], error: psycopg.Error, succeeded: int) -> None:
    # PostgreSQL knows the place of an error of syntax or of names. It parses a whole message before it runs any of it.
    place = int(error.diag.statement_position or 0) - 1
    statements, start = [], 0
    for part in parts:
        statements += [(start + each.tokens[0].start, part, each) for each in statements_of(part.text)]
        start += len(part.text)
    before = [number for number, (begin, *_) in enumerate(statements) if begin <= place]
    number = before[-1] if before else succeeded
    if number < len(statements):
        _, part, statement = statements[number]
        error.add_note(f"{_revision(part)}{statement.summary}")


def _revision(part: Part) -> str:
    return f"Revision {part.revision}: " if part.revision else "Statement: "


@lru_cache(maxsize=4096)
def _literal(value: str) -> str:
    return sql.Literal(value).as_string()


@lru_cache(maxsize=4096)
def _identifier(name: str) -> str:
    return sql.Identifier(name).as_string()
