"""The roles of an installation: their logins, memberships, and privileges on the database and the catalogue.

Roles belong to the whole PostgreSQL server, so a server has one installation. Privileges on tables are granted by the
migrations that create the tables.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from uuid import UUID

import psycopg
from psycopg import pq, sql
from psycopg.rows import TupleRow
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from tenant_schemas import base64url, search_path
from tenant_schemas.errors import NotPrepared
from tenant_schemas.tenant import Tenant

# The schema of the function that gives PgBouncer the verifiers, if there is one.
POOLER_SCHEMA = "pgbouncer"
# The setting from which a migration reads the role to grant to. So its SQL names no tenant and is the same for all.
TENANT_ROLE_SETTING = "tenant_schemas.tenant_role"


@dataclass(frozen=True, slots=True)
class ServiceRoles:
    """The names of the service's own roles.

    `owner` can't log in and owns everything. `migrator` runs the scripts, as a member of owner. `app` is the login of
    the shared side. `backup` reads everything. `relay` asks which tenants have events to relay, and sees none of them.
    `tenants` can't log in: it is the group of all tenant logins, and holds their common privileges, so that access
    lists do not grow with the number of tenants. `pool` exists only if tenants share a login: it is a member of every
    tenant's role with NOINHERIT, so it has no privileges before SET ROLE. `pooler` exists only if a DBA made it:
    with it PgBouncer reads the verifiers of logins, in a schema of its own.
    """

    owner: str
    migrator: str
    app: str
    backup: str
    relay: str
    tenants: str
    pool: str
    pooler: str

    @classmethod
    def named(cls, prefix: str) -> "ServiceRoles":
        return cls(*(f"{prefix}_{field.name}" for field in fields(cls)))


def tenant_password(secret: str, tenant_id: UUID, epoch: int) -> str:
    """The password of a tenant's login: HMAC-SHA256 (RFC 2104) with the master secret, never stored. A new epoch gives
    a new password.
    """
    return _derive_password(secret, f"tenant-login:{tenant_id}:{epoch}")


def pool_password(secret: str) -> str:
    """The password of the pool role, derived from the same master secret."""
    return _derive_password(secret, "pool-login")


def relay_password(secret: str) -> str:
    """The password of the relay's role on the embedded server, derived from the same master secret."""
    return _derive_password(secret, "relay-login")


def _derive_password(secret: str, label: str) -> str:
    digest = hmac.new(secret.encode(), label.encode(), hashlib.sha256).digest()
    return base64url.encode(digest)


def create_service_roles(connection: Connection, roles: ServiceRoles, passwords: dict[str, str]) -> None:
    """Create the missing roles and revoke PUBLIC's privileges on the database. Needs a superuser; safe to repeat.
    Commits nothing.

    `passwords` are those of the migrator, app, backup and relay roles by role name. A role without an entry keeps its
    own. The migrator may administer the roles of the tenants afterwards, also of those that an older PostgreSQL made.
    """
    attributes = {
        roles.owner: "NOLOGIN",
        roles.migrator: "LOGIN CREATEROLE",
        roles.app: "LOGIN",
        roles.backup: "LOGIN BYPASSRLS",
        roles.relay: "LOGIN",
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
    _grant_membership(connection, roles.owner, roles.migrator)
    _grant_membership(connection, roles.tenants, roles.migrator, is_admin=True)
    _grant_membership(connection, "pg_read_all_data", roles.backup)
    _grant_membership(connection, "pg_read_all_stats", roles.backup)
    # A migration reports the sessions that block it.
    _grant_membership(connection, "pg_read_all_stats", roles.migrator)
    owner = sql.Identifier(roles.owner)
    # By default PostgreSQL lets PUBLIC execute every new function.
    _run(connection, sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE ALL ON FUNCTIONS FROM PUBLIC").format(owner))
    grant_administration(connection, roles, tenant_logins(connection, roles))
    revoke_public_privileges(connection, roles)


# PostgreSQL before 16 lets a role with CREATEROLE administer every role, and a membership has no options of its own.
HAS_MEMBERSHIP_OPTIONS = 160_000


def grant_administration(connection: Connection, roles: ServiceRoles, role_names: Iterable[str]) -> None:
    """Let the migrator administer these roles of tenants: set passwords, rename, drop. Needs a superuser; safe to
    repeat. Commits nothing.

    From PostgreSQL 16 on, who creates a role administers it. An upgrade from 15 brings only what was granted.
    """
    for role_name in role_names:
        _run(connection, _administration(connection, role_name, roles))


def _grant_membership(
    connection: Connection, role_name: str, member: str, *, inherits: bool = True, is_admin: bool = False
) -> None:
    """With its options: from 16 on, a membership that exists would keep other ones."""
    options = " WITH ADMIN OPTION" if is_admin else ""
    if driver_of(connection).info.server_version >= HAS_MEMBERSHIP_OPTIONS:
        options = " WITH INHERIT TRUE, SET TRUE" if inherits else " WITH INHERIT FALSE, SET TRUE"
        options += ", ADMIN TRUE" if is_admin else ""
    names = sql.Identifier(role_name), sql.Identifier(member)
    _run(connection, sql.SQL("GRANT {} TO {}" + options).format(*names))


def _administration(connection: Connection, role_name: str, roles: ServiceRoles) -> sql.Composed:
    options = "ADMIN OPTION"
    if driver_of(connection).info.server_version >= HAS_MEMBERSHIP_OPTIONS:
        options = "ADMIN TRUE, INHERIT FALSE, SET FALSE"
    names = sql.Identifier(role_name), sql.Identifier(roles.migrator)
    return sql.SQL("GRANT {} TO {} WITH " + options).format(*names)


# Functions of a new database that every role may call and the service does not need: they create large objects, which
# belong to no schema; take advisory locks or notify other sessions; show prepared transactions. PostgreSQL keeps their
# names and arguments between versions, so `pg_upgrade` keeps the revoked privileges.
REVOKED_FUNCTIONS = r"""
    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND (
        proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_notify', 'pg_prepared_xact')
        OR proname ~ '^pg_(try_)?advisory_')
    ORDER BY 1"""
# Functions that only monitoring roles keep: statistics and sizes of other tenants' tables, indexes and sessions.
MONITORING_FUNCTIONS = r"""
    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND (
        proname IN ('pg_stat_get_activity', 'pg_lock_status', 'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids')
        OR proname IN ('pg_relation_size', 'pg_table_size', 'pg_indexes_size', 'pg_total_relation_size')
        OR proname ~ '^pg_stat_get_(?!xact_)' AND proargtypes = 'oid'::regtype::oid::text::oidvector
        OR proname ~ '^pg_stat_get_backend_')
    ORDER BY 1"""
# The columns of pg_class that show how many rows a table has.
REVOKED_COLUMNS = ("relpages", "reltuples", "relallvisible", "relallfrozen")


def revoke_public_privileges(connection: Connection, roles: ServiceRoles) -> None:
    """Revoke PUBLIC's privileges on the current database and its catalogue. Needs a superuser; safe to repeat."""
    restrict_connections(connection, roles, connection.exec_driver_sql("SELECT current_database()").scalar_one())
    _run(connection, sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC"))
    _revoke_catalogue(connection, roles)
    _revoke_set_config(connection, roles)


def restrict_connections(connection: Connection, roles: ServiceRoles, database_name: str) -> None:
    """Let only the service's roles connect to the database. PostgreSQL does not copy this part of
    `revoke_public_privileges` with a template database. Needs a superuser; safe to repeat.
    """
    database = sql.Identifier(database_name)
    _run(connection, sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    # Behind PgBouncer the service's own TimeZone is lost, and psycopg can't read the end of 9999 in a zone east of UTC.
    _run(connection, sql.SQL("ALTER DATABASE {} SET TimeZone TO 'UTC'").format(database))
    _run(connection, sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, sql.Identifier(roles.owner)))
    may_connect = [roles.migrator, roles.app, roles.backup, roles.relay, roles.tenants]
    for role_name in (*may_connect, *([roles.pool] if may_log_in(connection, roles.pool) else ())):
        _run(connection, sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(role_name)))


def _revoke_catalogue(connection: Connection, roles: ServiceRoles) -> None:
    """Revoke from PUBLIC functions that it does not need, statistics of other tenants, and plpgsql (DO blocks)."""
    revoked, monitoring = (
        ", ".join(connection.exec_driver_sql(query).scalars()) for query in (REVOKED_FUNCTIONS, MONITORING_FUNCTIONS)
    )
    connection.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION {revoked}, {monitoring} FROM PUBLIC")
    connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {monitoring} TO pg_read_all_stats")
    owner, migrator = sql.Identifier(roles.owner), sql.Identifier(roles.migrator)
    _run(connection, sql.SQL("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC"))
    _run(connection, sql.SQL("GRANT USAGE ON LANGUAGE plpgsql TO {}").format(owner))
    columns = "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = 'pg_class'::regclass AND attnum > 0"
    names = [name for name in connection.exec_driver_sql(columns).scalars() if name not in REVOKED_COLUMNS]
    shown = sql.SQL(", ").join(map(sql.Identifier, names))
    _run(connection, sql.SQL("REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC"))
    _run(connection, sql.SQL("GRANT SELECT ({}) ON pg_catalog.pg_class TO PUBLIC").format(shown))
    readers = sql.SQL(", ").join((owner, migrator, sql.Identifier("pg_read_all_stats")))
    _run(connection, sql.SQL("GRANT SELECT ON pg_catalog.pg_class TO {}").format(readers))


def _revoke_set_config(connection: Connection, roles: ServiceRoles) -> None:
    """A SELECT must not change the role, search_path or time-out. Only migrations and pg_dump need set_config."""
    setter = sql.SQL("FUNCTION pg_catalog.set_config(text, text, boolean)")
    _run(connection, sql.SQL("REVOKE EXECUTE ON {} FROM PUBLIC").format(setter))
    for role_name in (roles.owner, roles.migrator, roles.backup):
        _run(connection, sql.SQL("GRANT EXECUTE ON {} TO {}").format(setter, sql.Identifier(role_name)))


def revoke_public_on_default_databases(connection: Connection) -> None:
    """Revoke PUBLIC's CONNECT and TEMP on PostgreSQL's own databases. Needs a superuser; for a dedicated server."""
    _run(connection, sql.SQL("REVOKE CONNECT, TEMP ON DATABASE postgres, template1 FROM PUBLIC"))


def create_pool_role(connection: Connection, roles: ServiceRoles, password: str) -> None:
    """Create the pool role, a login that all tenants share, and make it a member of every tenant's role. Needs a
    superuser; safe to repeat. Commits nothing.
    """
    pool = sql.Identifier(roles.pool)
    if not role_exists(connection, roles.pool):
        _run(connection, sql.SQL("CREATE ROLE {}").format(pool))
    _run(connection, sql.SQL("ALTER ROLE {} LOGIN NOINHERIT").format(pool))
    _run(connection, sql.SQL("ALTER ROLE {} RESET ALL").format(pool))
    _set_password(connection, roles.pool, password)
    connection.exec_driver_sql(search_path.set_role_default(roles.pool, None))
    for role_name in tenant_logins(connection, roles):
        _grant_membership(connection, role_name, roles.pool, inherits=False)
    revoke_public_privileges(connection, roles)


def disable_pool_role(connection: Connection, roles: ServiceRoles) -> None:
    """Set the pool role to NOLOGIN and revoke its memberships, if it exists. Needs a superuser; safe to repeat. Commits
    nothing.
    """
    if not role_exists(connection, roles.pool):
        return
    _run(connection, sql.SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL").format(sql.Identifier(roles.pool)))
    database = sql.Identifier(connection.exec_driver_sql("SELECT current_database()").scalar_one())
    _run(connection, sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(database, sql.Identifier(roles.pool)))
    query = """
        SELECT r.rolname, g.rolname FROM pg_catalog.pg_auth_members m
        JOIN pg_catalog.pg_roles r ON r.oid = m.roleid JOIN pg_catalog.pg_roles g ON g.oid = m.grantor
        WHERE m.member = pg_catalog.to_regrole(%s)"""
    for role_name, grantor in connection.exec_driver_sql(query, (roles.pool,)).all():
        names = [sql.Identifier(name) for name in (role_name, roles.pool, grantor)]
        _run(connection, sql.SQL("REVOKE {} FROM {} GRANTED BY {}").format(*names))


def tenant_logins(connection: Connection, roles: ServiceRoles) -> list[str]:
    """The members of the tenants' group, also those that belong to no tenant of this database."""
    query = """
        SELECT r.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member
        WHERE m.roleid = pg_catalog.to_regrole(%s) AND r.rolname <> %s ORDER BY 1"""
    return list(connection.exec_driver_sql(query, (roles.tenants, roles.migrator)).scalars())


def create_tenant_role(connection: Connection, tenant: Tenant, password: str, roles: ServiceRoles) -> None:
    """Create the tenant's login with its search_path and as a member of the tenants' group. Commits nothing."""
    role = sql.Identifier(tenant.role_name)
    statements = [
        sql.SQL("CREATE ROLE {} LOGIN").format(role).as_string(),
        sql.SQL("GRANT {} TO {}").format(sql.Identifier(roles.tenants), role).as_string(),
        _password_statement(connection, tenant.role_name, password),
        search_path.set_role_default(tenant.role_name, tenant.schema_name),
    ]
    if driver_of(connection).info.server_version < HAS_MEMBERSHIP_OPTIONS:
        # What PostgreSQL 16 gives to the migrator, who creates the role, so that it survives an upgrade.
        statements.append(_administration(connection, tenant.role_name, roles).as_string())
    if may_log_in(connection, roles.pool):
        statements.append(sql.SQL("GRANT {} TO {}").format(role, sql.Identifier(roles.pool)).as_string())
    send(connection, ";".join(statements))


def set_tenant_login(connection: Connection, tenant: Tenant, password: str) -> None:
    """Set the login's password and search_path and reset its other defaults, which it can change. Commits nothing."""
    role = sql.Identifier(tenant.role_name)
    _set_password(connection, tenant.role_name, password)
    _run(connection, sql.SQL("ALTER ROLE {} RESET ALL").format(role))
    # A default for one database would override the default for all.
    database = sql.Identifier(connection.exec_driver_sql("SELECT current_database()").scalar_one())
    _run(connection, sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role, database))
    connection.exec_driver_sql(search_path.set_role_default(tenant.role_name, tenant.schema_name))


def create_tenant_schema(connection: Connection, tenant: Tenant) -> None:
    """Create the tenant's schema, as the owner, and grant its use to the tenant. Commits nothing."""
    names = {"schema": sql.Identifier(tenant.schema_name), "role": sql.Identifier(tenant.role_name)}
    text = sql.SQL("CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO {role}").format(**names)
    send(connection, text.as_string())


def become_owner(connection: Connection, roles: ServiceRoles) -> None:
    """SET LOCAL ROLE to the owner, who then owns all new objects of the db transaction. Raises NotPrepared if the role
    is missing; the db transaction is then aborted.
    """
    try:
        _run(connection, sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(roles.owner)))
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.InvalidParameterValue):
            raise
        reason = f"Role {roles.owner} does not exist on this server. Run `python -m scripts.create_roles`."
        raise NotPrepared(reason) from None


def stop_being_owner(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL ROLE NONE")


def is_superuser(connection: Connection) -> bool:
    """Whether the current role is a superuser."""
    query = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    return bool(connection.exec_driver_sql(query).scalar_one())


def role_exists(connection: Connection, role_name: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s)"
    return bool(connection.exec_driver_sql(query, (role_name,)).scalar_one())


def may_log_in(connection: Connection, role_name: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s AND rolcanlogin)"
    return bool(connection.exec_driver_sql(query, (role_name,)).scalar_one())


def _set_password(connection: Connection, role_name: str, password: str) -> None:
    connection.exec_driver_sql(_password_statement(connection, role_name, password))


def _password_statement(connection: Connection, role_name: str, password: str) -> str:
    """The statement contains the SCRAM verifier: the password itself reaches neither the server nor its log."""
    pgconn = driver_of(connection).pgconn
    verifier = pgconn.encrypt_password(password.encode(), role_name.encode(), b"scram-sha-256").decode()
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role_name), sql.Literal(verifier))
    return statement.as_string()


class MessageCursor(psycopg.Cursor[TupleRow]):
    """A cursor that counts the statements of a message that succeeded before one failed."""

    succeeded = 0

    def _check_results(self, results: list[pq.abc.PGresult]) -> None:
        failed = (number for number, each in enumerate(results) if each.status == pq.ExecStatus.FATAL_ERROR)
        self.succeeded = next(failed, len(results))
        super()._check_results(results)


def send(
    connection: Connection, text: str, on_error: Callable[[psycopg.Error, int], None] = lambda _, __: None
) -> None:
    """Send several statements as one message, in the open db transaction. Raises psycopg's errors. `on_error` gets the
    error before, with the number of statements that succeeded.
    """
    with MessageCursor(driver_of(connection)) as cursor:
        try:
            cursor.execute(text.encode(), prepare=False)
        except psycopg.Error as error:
            on_error(error, cursor.succeeded)
            raise


def driver_of(connection: Connection) -> psycopg.Connection:
    """psycopg's own connection, in the same db transaction."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError(
            f"This needs a psycopg connection, not {type(driver).__name__}: use the driver postgresql+psycopg."
        )
    return driver


def _run(connection: Connection, statement: sql.Composable) -> None:
    connection.exec_driver_sql(statement.as_string())
