"""What the history makes at a revision: its revisions make it in a new schema, which is described and rolled back.

That needs the owner's rights, and for a fraction of a second nobody may write to the tables of `shared` that tenants'
tables refer to. So the fingerprint is noted in `shared.schema_fingerprints` for those who come later, or may not make
it: it depends on the files of the revisions, the server's version and the wording alone, and these are its key.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, LiteralString

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from tenant_schemas.lifecycle.provision import make_schema
from tenant_schemas.migrations.history import History, Migrations, first_line
from tenant_schemas.registry import all_tenants
from tenant_schemas.roles import become_owner, role_exists
from tenant_schemas.schema_diff.catalog import WORDING, AnyConnection, Objects, fingerprints_of, objects_of
from tenant_schemas.tenant import Tenant

# The revisions lock tables of `shared` against writing, and whoever comes next queues behind us.
_LOCK_TIMEOUT_MS = 500
_STATEMENT_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True)
class Reference:
    """What the history makes at one revision, in PostgreSQL's words by kind and name. Of what is only noted there is
    the fingerprint alone; where nothing could be made there is nothing, and then perhaps why.
    """

    fingerprint: str | None = None
    objects: Objects | None = None
    failure: str | None = None


def make_reference(
    connection: Connection, migrations: Migrations, tenants: Sequence[Tenant], revision: str
) -> Reference:
    """Make a schema as the owner, describe it and roll it back to a savepoint. A tenant's role lends its name to the
    rights in it.
    """
    lender = next((tenant for tenant in tenants if role_exists(connection, tenant.role_name)), None)
    if lender is None or not _may_be_made(connection, migrations.roles.owner):
        return Reference()
    new = replace(lender, schema_name=f"new_{secrets.token_hex(8)}", revision=revision)
    savepoint = connection.begin_nested()
    try:
        _set_timeouts(connection)
        become_owner(connection, migrations.roles)
        # Were this missing, it is another fault, and none of every tenant's.
        connection.exec_driver_sql("ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC")
        make_schema(connection, migrations, new)
        return Reference(fingerprints_of(connection, [new])[new.schema_name], objects_of(connection, new))
    except Exception as error:  # noqa: BLE001  Whatever it is, it is why there is none.
        return Reference(failure=first_line(error))
    finally:
        savepoint.rollback()


def stored_fingerprint(connection: AnyConnection, migrations: Migrations, revision: str) -> str | None:
    """The fingerprint that was noted for this revision as its files are now, if this login may see the note."""
    if not _has_right(connection, "SELECT"):
        return None
    query: LiteralString = "SELECT (SELECT fingerprint FROM shared.schema_fingerprints WHERE key = %s)"
    found = _ask(connection, query, _key(connection, migrations, revision))
    return None if found is None else str(found)


def store_fingerprint(connection: Connection, migrations: Migrations, revision: str, fingerprint: str) -> None:
    """Note it within the open db transaction, if this login may, and nobody is noting the same."""
    if not _has_right(connection, "INSERT") or _gives_too_much(connection, migrations.roles.owner):
        return
    savepoint = connection.begin_nested()
    try:
        _set_timeouts(connection)
        connection.exec_driver_sql(
            "INSERT INTO shared.schema_fingerprints (key, fingerprint) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (_key(connection, migrations, revision), fingerprint),
        )
    except DBAPIError:
        savepoint.rollback()
    else:
        savepoint.commit()


def store_head_fingerprint(engine: Engine, migrations: Migrations) -> None:
    """Note what the head of the history makes, unless that is done, for those who may only read and compare with it.
    It is made and rolled back; where it can't be made nothing is noted.
    """
    head = migrations.head(History.TENANT)
    with engine.begin() as connection:
        if stored_fingerprint(connection, migrations, head) is None:
            reference = make_reference(connection, migrations, all_tenants(connection), head)
            if reference.fingerprint:
                store_fingerprint(connection, migrations, head, reference.fingerprint)


def _may_be_made(connection: Connection, owner: str) -> bool:
    query = """
        SELECT pg_has_role(%s, 'MEMBER') AND NOT pg_is_in_recovery()
            AND current_setting('transaction_read_only') = 'off'"""
    return bool(connection.exec_driver_sql(query, (owner,)).scalar_one())


def _gives_too_much(connection: Connection, owner: str) -> bool:
    """Whether what the owner makes at this moment is others' by default: then the reference is no measure."""
    query = """
        SELECT EXISTS (SELECT FROM pg_default_acl d CROSS JOIN LATERAL aclexplode(d.defaclacl) a
            WHERE d.defaclrole = %s::regrole AND a.grantee <> d.defaclrole)"""
    return bool(_ask(connection, query, owner))


def _has_right(connection: AnyConnection, right: str) -> bool:
    """False also where `shared` has not come to the revision that makes the table."""
    return bool(_ask(connection, "SELECT has_table_privilege(to_regclass('shared.schema_fingerprints'), %s)", right))


def _ask(connection: AnyConnection, query: LiteralString, *parameters: Any) -> Any:
    """The only column of the only row."""
    execute = connection.exec_driver_sql if isinstance(connection, Connection) else connection.execute
    ((answer,),) = execute(query, parameters)
    return answer


def _key(connection: AnyConnection, migrations: Migrations, revision: str) -> bytes:
    made_of = sha256()
    version = _ask(connection, "SHOW server_version")
    made_of.update(repr((version, migrations.roles, revision, WORDING)).encode())
    for script in migrations.history(History.TENANT).revisions:
        file = Path(script.path)
        for part in sorted(file.parent.glob(f"{file.stem}.*")):
            made_of.update(sha256(part.read_bytes()).digest())
        if script.revision == revision:
            break
    return made_of.digest()


def _set_timeouts(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {_LOCK_TIMEOUT_MS}")
    connection.exec_driver_sql(f"SET LOCAL statement_timeout TO {_STATEMENT_TIMEOUT_MS}")
