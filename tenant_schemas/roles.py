"""Who may log in, and how far each role reaches before any table is made.

Roles belong to the whole PostgreSQL server, so one server holds one installation. What roles may do with single tables
stands beside those tables, in the migrations.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg import sql
from sqlalchemy import Connection

from tenant_schemas import search_path
from tenant_schemas.errors import NotPrepared
from tenant_schemas.tenant import Tenant

# The setting in which a migration finds the role to grant to. A migration's text so never names a tenant, and is the
# same for all of them.
TENANT_ROLE_SETTING = "tenant_schemas.tenant_role"


@dataclass(frozen=True, slots=True)
class ServiceRoles:
    """The roles of the service itself.

    `owner` can't log in and owns everything; `migrator` runs the scripts as a member of owner; `app` is the service's
    shared side; `backup` reads everything. `tenants` can't log in: it is the group of all tenant logins, to which
    what they have in common is granted once, so that no access list grows with the fleet.
    """

    owner: str
    migrator: str
    app: str
    backup: str
    tenants: str

    @classmethod
    def named(cls, prefix: str) -> "ServiceRoles":
        return cls(*(f"{prefix}_{name}" for name in ("owner", "migrator", "app", "backup", "tenants")))


def tenant_password(secret: str, tenant_id: UUID, epoch: int) -> str:
    """The password of a tenant's login: HMAC-SHA256 (RFC 2104) of the master secret, never stored. A new epoch is a
    new password.
    """
    digest = hmac.new(secret.encode(), f"tenant-login:{tenant_id}:{epoch}".encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")


def create_service_roles(connection: Connection, roles: ServiceRoles, passwords: dict[str, str]) -> None:
    """Make the roles that are missing and close the database to PUBLIC. Needs a superuser; safe to repeat.

    `passwords` are those of the migrator, app and backup roles, by role name; a role without one keeps what it has.
    Commits nothing itself.
    """
    attributes = {
        roles.owner: "NOLOGIN",
        roles.migrator: "LOGIN CREATEROLE",
        roles.app: "LOGIN",
        roles.backup: "LOGIN BYPASSRLS",
        roles.tenants: "NOLOGIN",
    }
    for role_name, options in attributes.items():
        if not role_exists(connection, role_name):
            _run(connection, sql.SQL("CREATE ROLE {}").format(sql.Identifier(role_name)))
        _run(connection, sql.SQL("ALTER ROLE {} " + options).format(sql.Identifier(role_name)))
        if role_name in passwords:
            _set_password(connection, role_name, passwords[role_name])
        if " LOGIN" in f" {options}":
            connection.exec_driver_sql(search_path.set_role_default(role_name, None))
    owner, migrator = sql.Identifier(roles.owner), sql.Identifier(roles.migrator)
    _run(connection, sql.SQL("GRANT {} TO {}").format(owner, migrator))
    _run(connection, sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(roles.tenants), migrator))
    _run(connection, sql.SQL("GRANT pg_read_all_data TO {}").format(sql.Identifier(roles.backup)))
    # What the owner makes is nobody's until it is granted; PostgreSQL would give functions to PUBLIC.
    _run(connection, sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE ALL ON FUNCTIONS FROM PUBLIC").format(owner))
    close_database(connection, roles)


def close_database(connection: Connection, roles: ServiceRoles) -> None:
    """Leave PUBLIC nothing on the current database. Needs its owner or a superuser; safe to repeat."""
    database = sql.Identifier(connection.exec_driver_sql("SELECT current_database()").scalar_one())
    _run(connection, sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    _run(connection, sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC"))
    # A large object would be a place to write that no schema owns.
    _run(connection, sql.SQL("REVOKE ALL ON FUNCTION lo_creat, lo_create, lo_from_bytea FROM PUBLIC"))
    _run(connection, sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, sql.Identifier(roles.owner)))
    for role_name in (roles.migrator, roles.app, roles.backup, roles.tenants):
        _run(connection, sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(role_name)))


def create_tenant_role(connection: Connection, tenant: Tenant, password: str, roles: ServiceRoles) -> None:
    """Make the tenant's login: its own schema's path, the group's rights, and no more. Commits nothing itself."""
    role = sql.Identifier(tenant.role_name)
    _run(connection, sql.SQL("CREATE ROLE {} LOGIN").format(role))
    _run(connection, sql.SQL("GRANT {} TO {}").format(sql.Identifier(roles.tenants), role))
    set_tenant_login(connection, tenant, password)


def set_tenant_login(connection: Connection, tenant: Tenant, password: str) -> None:
    """Set the login's password and its path, and none of the other defaults that a role may give itself."""
    _set_password(connection, tenant.role_name, password)
    _run(connection, sql.SQL("ALTER ROLE {} RESET ALL").format(sql.Identifier(tenant.role_name)))
    connection.exec_driver_sql(search_path.set_role_default(tenant.role_name, tenant.schema_name))


def create_tenant_schema(connection: Connection, tenant: Tenant) -> None:
    """Make the tenant's schema, as the owner, and let the tenant use it. Commits nothing itself."""
    schema, role = sql.Identifier(tenant.schema_name), sql.Identifier(tenant.role_name)
    _run(connection, sql.SQL("CREATE SCHEMA {}").format(schema))
    _run(connection, sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))


def become_owner(connection: Connection, roles: ServiceRoles) -> None:
    """Act as the owner until the db transaction ends, so that everything it makes is the owner's."""
    if not role_exists(connection, roles.owner):
        raise NotPrepared(f"Role {roles.owner} is missing on this server: run `python -m scripts.create_roles` first.")
    _run(connection, sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(roles.owner)))


def stop_being_owner(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL ROLE NONE")


def role_exists(connection: Connection, role_name: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s)"
    return bool(connection.exec_driver_sql(query, (role_name,)).scalar_one())


def _set_password(connection: Connection, role_name: str, password: str) -> None:
    """Send the SCRAM verifier, made here: the password itself reaches neither the server nor its log."""
    pgconn = _driver(connection).pgconn
    verifier = pgconn.encrypt_password(password.encode(), role_name.encode(), b"scram-sha-256").decode()
    _run(connection, sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role_name), sql.Literal(verifier)))


def _driver(connection: Connection) -> psycopg.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("Roles are made through psycopg connections only.")
    return driver


def _run(connection: Connection, statement: sql.Composable) -> None:
    connection.exec_driver_sql(statement.as_string())
