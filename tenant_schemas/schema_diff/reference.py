"""The reference of a revision: the objects that the history makes, described from a new schema that is rolled back.

Making it needs the owner's rights, and blocks writes to referenced tables of `shared` for a fraction of a second. So
its fingerprint and its descriptions are stored in `shared.schema_fingerprints`, also for logins that may not make it.
The key is a hash of the revision files, the server's version and the catalogue query, which alone determine them.
"""

import json
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
from tenant_schemas.schema_diff.catalog import QUERY_HASH, Objects, fingerprints_of, objects_of
from tenant_schemas.sessions import AnyConnection
from tenant_schemas.tenant import Tenant

# Short, because the revisions lock tables of `shared` against writes, and other sessions queue behind the lock.
_LOCK_TIMEOUT_MS = 500
_STATEMENT_TIMEOUT_MS = 10_000
# The table is older than its column.
_HAS_OBJECTS = """
    SELECT EXISTS (SELECT FROM pg_attribute
        WHERE attrelid = to_regclass('shared.schema_fingerprints') AND attname = 'objects')"""


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference of one revision: its fingerprint and object descriptions. Only the fingerprint if one of the
    compared schemas has it, or an earlier release stored it; neither if it could not be made, with the error in
    `failure` if there was one.
    """

    fingerprint: str | None = None
    objects: Objects | None = None
    failure: str | None = None


def make_reference(
    connection: Connection, migrations: Migrations, tenants: Sequence[Tenant], revision: str
) -> Reference:
    """Make a schema as the owner, describe it, and roll back to a savepoint. Its grants use the role of the first
    tenant whose role exists. An error is returned as the reference's `failure`.
    """
    with_role = next((tenant for tenant in tenants if role_exists(connection, tenant.role_name)), None)
    if with_role is None or not _can_make_reference(connection, migrations.roles.owner):
        return Reference()
    new = replace(with_role, schema_name=f"new_{secrets.token_hex(8)}", revision=revision)
    savepoint = connection.begin_nested()
    try:
        _set_timeouts(connection)
        become_owner(connection, migrations.roles)
        # A database without this default is a fault of its own, and must not show up as drift of every tenant.
        connection.exec_driver_sql("ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC")
        make_schema(connection, migrations, new)
        return Reference(fingerprints_of(connection, [new])[new.schema_name], objects_of(connection, new))
    except Exception as error:  # noqa: BLE001  Any error is the reason why there is no reference.
        return Reference(failure=first_line(error))
    finally:
        savepoint.rollback()


def stored_fingerprint(connection: AnyConnection, migrations: Migrations, revision: str) -> str | None:
    """The stored fingerprint of this revision with its current files; None if there is none or this login may not read
    the table.
    """
    if not _has_right(connection, "SELECT"):
        return None
    query: LiteralString = "SELECT (SELECT fingerprint FROM shared.schema_fingerprints WHERE key = %s)"
    found = _fetch_value(connection, query, _key(connection, migrations, revision))
    return None if found is None else str(found)


def stored_objects(connection: AnyConnection, migrations: Migrations, revision: str) -> Objects | None:
    """The stored descriptions of the reference of this revision with its current files; None if there are none, or this
    login may not read the table.
    """
    if not _has_right(connection, "SELECT"):
        return None
    # The table is older than its column.
    query: LiteralString = "SELECT (SELECT to_jsonb(f) ->> 'objects' FROM shared.schema_fingerprints f WHERE key = %s)"
    found = _fetch_value(connection, query, _key(connection, migrations, revision))
    if found is None:
        return None
    return {(kind, name): words for kind, by_name in json.loads(found).items() for name, words in by_name.items()}


def store_fingerprint(
    connection: Connection, migrations: Migrations, revision: str, fingerprint: str, objects: Objects | None = None
) -> None:
    """Store a fingerprint, and the objects' descriptions, within the open db transaction. Does nothing if this login
    may not, the owner has other default privileges, or another session is storing the same one.
    """
    if not _has_right(connection, "INSERT") or _has_default_grants(connection, migrations.roles.owner):
        return
    savepoint = connection.begin_nested()
    try:
        _set_timeouts(connection)
        key = _key(connection, migrations, revision)
        connection.exec_driver_sql(
            "INSERT INTO shared.schema_fingerprints (key, fingerprint) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (key, fingerprint),
        )
        if objects is not None and connection.exec_driver_sql(_HAS_OBJECTS).scalar_one():
            connection.exec_driver_sql(
                "UPDATE shared.schema_fingerprints SET objects = %s::jsonb WHERE key = %s", (_to_json(objects), key)
            )
    except DBAPIError:
        savepoint.rollback()
    else:
        savepoint.commit()


def store_head_fingerprint(engine: Engine, migrations: Migrations) -> None:
    """Make the reference of the history's head and store its fingerprint, unless it is stored; commits. Read-only
    logins can then compare with it. Does nothing if the reference can't be made.
    """
    head = migrations.head(History.TENANT)
    with engine.begin() as connection:
        if stored_fingerprint(connection, migrations, head) is None:
            reference = make_reference(connection, migrations, all_tenants(connection), head)
            if reference.fingerprint:
                store_fingerprint(connection, migrations, head, reference.fingerprint, reference.objects)


def _to_json(objects: Objects) -> str:
    by_kind: dict[str, dict[str, str]] = {}
    for (kind, name), words in objects.items():
        by_kind.setdefault(kind, {})[name] = words
    return json.dumps(by_kind)


def _can_make_reference(connection: Connection, owner: str) -> bool:
    query = """
        SELECT pg_has_role(%s, 'MEMBER') AND NOT pg_is_in_recovery()
            AND current_setting('transaction_read_only') = 'off'"""
    return bool(connection.exec_driver_sql(query, (owner,)).scalar_one())


def _has_default_grants(connection: Connection, owner: str) -> bool:
    """Whether default privileges grant rights on the owner's new objects to other roles: they would be in the
    reference.
    """
    query = """
        SELECT EXISTS (SELECT FROM pg_default_acl d CROSS JOIN LATERAL aclexplode(d.defaclacl) a
            WHERE d.defaclrole = %s::regrole AND a.grantee <> d.defaclrole)"""
    return bool(_fetch_value(connection, query, owner))


def _has_right(connection: AnyConnection, right: str) -> bool:
    """Whether this login has a right on shared.schema_fingerprints. False if `shared` does not have the table yet."""
    query: LiteralString = "SELECT has_table_privilege(to_regclass('shared.schema_fingerprints'), %s)"
    return bool(_fetch_value(connection, query, right))


def _fetch_value(connection: AnyConnection, query: LiteralString, *parameters: Any) -> Any:
    """The only column of the only row."""
    execute = connection.exec_driver_sql if isinstance(connection, Connection) else connection.execute
    ((value,),) = execute(query, parameters)
    return value


def _key(connection: AnyConnection, migrations: Migrations, revision: str) -> bytes:
    key = sha256()
    version = _fetch_value(connection, "SHOW server_version")
    key.update(repr((version, migrations.roles, revision, QUERY_HASH)).encode())
    for script in migrations.history(History.TENANT).revisions:
        file = Path(script.path)
        for part in sorted(file.parent.glob(f"{file.stem}.*")):
            key.update(sha256(part.read_bytes()).digest())
        if script.revision == revision:
            break
    return key.digest()


def _set_timeouts(connection: Connection) -> None:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout TO {_LOCK_TIMEOUT_MS}")
    connection.exec_driver_sql(f"SET LOCAL statement_timeout TO {_STATEMENT_TIMEOUT_MS}")
