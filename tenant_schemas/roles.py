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
from sqlalchemy.exc import DBAPIError

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
    what they have in common is granted once, so that no access list grows with the fleet. `pool` exists where tenants
    share a login: a member of every tenant's role that inherits from none, so it has no right before it takes one.
    """

    owner: str
    migrator: str
    app: str
    backup: str
    tenants: str
    pool: str

    @classmethod
    def named(cls, prefix: str) -> "ServiceRoles":
        return cls(*(f"{prefix}_{name}" for name in ("owner", "migrator", "app", "backup", "tenants", "pool")))


def tenant_password(secret: str, tenant_id: UUID, epoch: int) -> str:
    """The password of a tenant's login: HMAC-SHA256 (RFC 2104) of the master secret, never stored. A new epoch is a
    new password.
    """
    return _derived(secret, f"tenant-login:{tenant_id}:{epoch}")


def pool_password(secret: str) -> str:
    """The password of the pool's login, from the same master secret."""
    return _derived(secret, "pool-login")


def _derived(secret: str, label: str) -> str:
    digest = hmac.new(secret.encode(), label.encode(), hashlib.sha256).digest()
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
    backup = sql.Identifier(roles.backup)
    _run(connection, sql.SQL("GRANT pg_read_all_data, pg_read_all_stats TO {}").format(backup))
    # So that a migration can name who is in its way.
    _run(connection, sql.SQL("GRANT pg_read_all_stats TO {}").format(migrator))
    # What the owner makes is nobody's until it is granted; PostgreSQL would give functions to PUBLIC.
    _run(connection, sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE ALL ON FUNCTIONS FROM PUBLIC").format(owner))
    close_database(connection, roles)


# What every role may call in a new database, and the service needs not: to make large objects, which no schema owns; to
# keep others waiting or send them messages; to see what others are doing, how much and how large. PostgreSQL keeps the
# names and arguments of these from version to version, so that `pg_upgrade` can carry the rights over.
CLOSED_FUNCTIONS = r"""
    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND (
        proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'pg_notify', 'pg_prepared_xact')
        OR proname ~ '^pg_(try_)?advisory_')
    ORDER BY 1"""
# The part of it that those who watch the server keep: the numbers of one table, index or session.
WATCHED_FUNCTIONS = r"""
    SELECT oid::regprocedure::text FROM pg_catalog.pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND (
        proname IN ('pg_stat_get_activity', 'pg_lock_status', 'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids')
        OR proname IN ('pg_relation_size', 'pg_table_size', 'pg_indexes_size', 'pg_total_relation_size')
        OR proname ~ '^pg_stat_get_(?!xact_)' AND proargtypes = 'oid'::regtype::oid::text::oidvector
        OR proname ~ '^pg_stat_get_backend_')
    ORDER BY 1"""
# Estimates of how many rows a table has.
CLOSED_COLUMNS = ("relpages", "reltuples", "relallvisible", "relallfrozen")


def close_database(connection: Connection, roles: ServiceRoles) -> None:
    """Leave PUBLIC nothing on the current database that can be taken. Needs a superuser; safe to repeat."""
    close_entrance(connection, roles, connection.exec_driver_sql("SELECT current_database()").scalar_one())
    _run(connection, sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC"))
    _close_catalogue(connection, roles)
    _close_settings(connection, roles)


def close_entrance(connection: Connection, roles: ServiceRoles, database_name: str) -> None:
    """Let only the service's roles connect to the database. This is the part of `close_database` that PostgreSQL does
    not copy with a template. Needs a superuser; safe to repeat.
    """
    database = sql.Identifier(database_name)
    _run(connection, sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    # Behind PgBouncer the service's own wish for it is lost; psycopg reads no time past 9999 in a zone east of UTC.
    _run(connection, sql.SQL("ALTER DATABASE {} SET TimeZone TO 'UTC'").format(database))
    _run(connection, sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, sql.Identifier(roles.owner)))
    may_connect = [roles.migrator, roles.app, roles.backup, roles.tenants]
    for role_name in (*may_connect, *([roles.pool] if _may_log_in(connection, roles.pool) else ())):
        _run(connection, sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, sql.Identifier(role_name)))


def _close_catalogue(connection: Connection, roles: ServiceRoles) -> None:
    """Leave PUBLIC no look at how much others have and do, and no code of its own (DO) on the server."""
    closed, watched = (
        ", ".join(connection.exec_driver_sql(query).scalars()) for query in (CLOSED_FUNCTIONS, WATCHED_FUNCTIONS)
    )
    connection.exec_driver_sql(f"REVOKE EXECUTE ON FUNCTION {closed}, {watched} FROM PUBLIC")
    connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION {watched} TO pg_read_all_stats")
    owner, migrator = sql.Identifier(roles.owner), sql.Identifier(roles.migrator)
    _run(connection, sql.SQL("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC"))
    _run(connection, sql.SQL("GRANT USAGE ON LANGUAGE plpgsql TO {}").format(owner))
    columns = "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = 'pg_class'::regclass AND attnum > 0"
    names = [name for name in connection.exec_driver_sql(columns).scalars() if name not in CLOSED_COLUMNS]
    shown = sql.SQL(", ").join(map(sql.Identifier, names))
    _run(connection, sql.SQL("REVOKE SELECT ON pg_catalog.pg_class FROM PUBLIC"))
    _run(connection, sql.SQL("GRANT SELECT ({}) ON pg_catalog.pg_class TO PUBLIC").format(shown))
    readers = sql.SQL(", ").join((owner, migrator, sql.Identifier("pg_read_all_stats")))
    _run(connection, sql.SQL("GRANT SELECT ON pg_catalog.pg_class TO {}").format(readers))


def _close_settings(connection: Connection, roles: ServiceRoles) -> None:
    """A SELECT must change no setting: not the role, not the path, not the time-out. Migrations and pg_dump need to."""
    setter = sql.SQL("FUNCTION pg_catalog.set_config(text, text, boolean)")
    _run(connection, sql.SQL("REVOKE EXECUTE ON {} FROM PUBLIC").format(setter))
    for role_name in (roles.owner, roles.migrator, roles.backup):
        _run(connection, sql.SQL("GRANT EXECUTE ON {} TO {}").format(setter, sql.Identifier(role_name)))


def close_other_databases(connection: Connection) -> None:
    """Leave PUBLIC no way into PostgreSQL's own databases. Needs a superuser; for a server that is ours alone."""
    _run(connection, sql.SQL("REVOKE CONNECT, TEMP ON DATABASE postgres, template1 FROM PUBLIC"))


def open_pool(connection: Connection, roles: ServiceRoles, password: str) -> None:
    """Let all tenants share the pool's login: make it, and make it a member of every tenant's role. Needs a superuser;
    safe to repeat. Commits nothing itself.
    """
    pool = sql.Identifier(roles.pool)
    if not role_exists(connection, roles.pool):
        _run(connection, sql.SQL("CREATE ROLE {}").format(pool))
    _run(connection, sql.SQL("ALTER ROLE {} LOGIN NOINHERIT").format(pool))
    _run(connection, sql.SQL("ALTER ROLE {} RESET ALL").format(pool))
    _set_password(connection, roles.pool, password)
    connection.exec_driver_sql(search_path.set_role_default(roles.pool, None))
    for role_name in _tenant_roles(connection, roles):
        _run(connection, sql.SQL("GRANT {} TO {}").format(sql.Identifier(role_name), pool))
    close_database(connection, roles)


def close_pool(connection: Connection, roles: ServiceRoles) -> None:
    """Let nobody log in as the pool, and take its memberships away, if it was ever made. Needs a superuser. Commits
    nothing itself.
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


def _tenant_roles(connection: Connection, roles: ServiceRoles) -> list[str]:
    query = """
        SELECT r.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.member
        WHERE m.roleid = pg_catalog.to_regrole(%s) AND r.rolname <> %s ORDER BY 1"""
    return list(connection.exec_driver_sql(query, (roles.tenants, roles.migrator)).scalars())


def create_tenant_role(connection: Connection, tenant: Tenant, password: str, roles: ServiceRoles) -> None:
    """Make the tenant's login: its own schema's path, the group's rights, and no more. Commits nothing itself."""
    role = sql.Identifier(tenant.role_name)
    statements = [
        sql.SQL("CREATE ROLE {} LOGIN").format(role).as_string(),
        sql.SQL("GRANT {} TO {}").format(sql.Identifier(roles.tenants), role).as_string(),
        _password_statement(connection, tenant.role_name, password),
        search_path.set_role_default(tenant.role_name, tenant.schema_name),
    ]
    if _may_log_in(connection, roles.pool):
        statements.append(sql.SQL("GRANT {} TO {}").format(role, sql.Identifier(roles.pool)).as_string())
    send(connection, ";".join(statements))


def set_tenant_login(connection: Connection, tenant: Tenant, password: str) -> None:
    """Set the login's password and its path, and none of the other defaults that a role may give itself."""
    role = sql.Identifier(tenant.role_name)
    _set_password(connection, tenant.role_name, password)
    _run(connection, sql.SQL("ALTER ROLE {} RESET ALL").format(role))
    # A default for one database would win over that for all.
    database = sql.Identifier(connection.exec_driver_sql("SELECT current_database()").scalar_one())
    _run(connection, sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role, database))
    connection.exec_driver_sql(search_path.set_role_default(tenant.role_name, tenant.schema_name))


def create_tenant_schema(connection: Connection, tenant: Tenant) -> None:
    """Make the tenant's schema, as the owner, and let the tenant use it. Commits nothing itself."""
    names = {"schema": sql.Identifier(tenant.schema_name), "role": sql.Identifier(tenant.role_name)}
    text = sql.SQL("CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO {role}").format(**names)
    send(connection, text.as_string())


def become_owner(connection: Connection, roles: ServiceRoles) -> None:
    """Act as the owner until the db transaction ends, so that everything it makes is the owner's. Raises NotPrepared,
    and the db transaction is then over.
    """
    try:
        _run(connection, sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(roles.owner)))
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.InvalidParameterValue):
            raise
        reason = f"Role {roles.owner} is missing on this server: run `python -m scripts.create_roles` first."
        raise NotPrepared(reason) from None


def stop_being_owner(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL ROLE NONE")


def role_exists(connection: Connection, role_name: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s)"
    return bool(connection.exec_driver_sql(query, (role_name,)).scalar_one())


def _may_log_in(connection: Connection, role_name: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s AND rolcanlogin)"
    return bool(connection.exec_driver_sql(query, (role_name,)).scalar_one())


def _set_password(connection: Connection, role_name: str, password: str) -> None:
    connection.exec_driver_sql(_password_statement(connection, role_name, password))


def _password_statement(connection: Connection, role_name: str, password: str) -> str:
    """It has the SCRAM verifier, made here: the password itself reaches neither the server nor its log."""
    pgconn = driver_of(connection).pgconn
    verifier = pgconn.encrypt_password(password.encode(), role_name.encode(), b"scram-sha-256").decode()
    statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role_name), sql.Literal(verifier))
    return statement.as_string()


def send(connection: Connection, text: str) -> None:
    """Send any number of statements as one message, within the open db transaction. Raises psycopg's errors."""
    driver_of(connection).execute(text.encode(), prepare=False)


def driver_of(connection: Connection) -> psycopg.Connection:
    """psycopg's own connection, in the same db transaction."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, psycopg.Connection):
        raise TypeError("Roles, rows and migrations go through psycopg connections only.")
    return driver


def _run(connection: Connection, statement: sql.Composable) -> None:
    connection.exec_driver_sql(statement.as_string())
