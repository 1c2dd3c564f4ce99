"""Create the service's roles and its database on a PostgreSQL server, as a superuser. Run it once for each server; it
is safe to repeat.

Creates the database of DATABASE_URL if it is missing, and the roles of the owner, the migrator, the service, the backup
and the relay. The logins get the passwords that ADMIN_DATABASE_URL, DATABASE_URL, BACKUP_DATABASE_URL and
RELAY_DATABASE_URL contain.
TENANT_LOGINS decides whether the login that all tenants share is opened or closed.

Example:
    PGPASSWORD=… python -m scripts.create_roles --superuser-url postgresql://postgres@db/postgres

Exit codes: 0 the database and the roles are ready; 1 the server can't be reached or refused a statement; 2 bad
arguments or settings.
"""

import rich_click as click
import sqlalchemy as sa
from psycopg import sql

from app.config import Settings
from app.db import ROLES, admin_engine
from scripts.support.console import BAD_ARGUMENTS, exit_with, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.roles import (
    create_pool_role,
    create_service_roles,
    disable_pool_role,
    driver_of,
    is_superuser,
    pool_password,
    revoke_public_on_default_databases,
)
from tenant_schemas.secret_checks import check_tenant_secret

NO_SUPERUSER = (
    "The login of --superuser-url is no superuser, and nothing was made. The service needs one here: it takes functions"
    " of the catalogue, which show one tenant the work of another, from PUBLIC, and gives the backup's login BYPASSRLS."
    " A server whose provider keeps the superuser can't hold it."
)


@click.command(cls=Script, help=__doc__)
@click.option(
    "--superuser-url",
    envvar="SUPERUSER_DATABASE_URL",
    required=True,
    help="URL of a superuser's login, for example postgresql://postgres@host/postgres. Put its password into the "
    "environment variable PGPASSWORD. Default: SUPERUSER_DATABASE_URL.",
)
def main(superuser_url: str) -> None:
    settings = settings_or_exit()
    app, admin = sa.make_url(settings.database_url), sa.make_url(settings.admin_database_url or settings.database_url)
    if app.username != ROLES.app or admin.username != ROLES.migrator:
        exit_with(
            f"DATABASE_URL must log in as {ROLES.app} and ADMIN_DATABASE_URL as {ROLES.migrator}: "
            "the roles get the passwords of these URLs.",
            BAD_ARGUMENTS,
        )
    check_superuser(superuser_url)
    create_roles(superuser_url, settings)
    made = (ROLES.owner, ROLES.migrator, ROLES.app, ROLES.backup, ROLES.relay)
    print(f"Database {app.database} and roles {', '.join(made)} are ready.")


def create_roles(superuser_url: str, settings: Settings) -> None:
    """Create the database of DATABASE_URL if it is missing, and the roles with the passwords of the settings' URLs.

    TENANT_LOGINS decides whether the login that tenants share is opened or closed. PostgreSQL's own databases are
    closed to PUBLIC on the embedded server only; on any other server they belong to the DBA.
    """
    app, admin = sa.make_url(settings.database_url), sa.make_url(settings.admin_database_url)
    _create_database(superuser_url, str(app.database))
    own_database = sa.make_url(superuser_url).set(database=app.database).render_as_string(hide_password=False)
    passwords = {ROLES.app: str(app.password), ROLES.migrator: str(admin.password)}
    optional = {ROLES.backup: settings.backup_database_url, ROLES.relay: settings.relay_database_url}
    passwords |= {name: str(sa.make_url(url).password) for name, url in optional.items() if url}
    with admin_engine(own_database).begin() as connection:
        check_tenant_secret(driver_of(connection), settings.tenant_secret, lock=True)
        create_service_roles(connection, ROLES, passwords)
        if settings.tenant_logins == "shared":
            create_pool_role(connection, ROLES, pool_password(settings.tenant_secret))
        else:
            disable_pool_role(connection, ROLES)
        if settings.is_embedded:
            revoke_public_on_default_databases(connection)


def check_superuser(superuser_url: str) -> None:
    """Exits 2 unless the login is a superuser."""
    with admin_engine(superuser_url).connect() as connection:
        if not is_superuser(connection):
            exit_with(NO_SUPERUSER, BAD_ARGUMENTS)


def _create_database(superuser_url: str, name: str) -> None:
    with admin_engine(superuser_url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        exists = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s)"
        if not connection.exec_driver_sql(exists, (name,)).scalar_one():
            connection.exec_driver_sql(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)).as_string())


if __name__ == "__main__":
    main()
