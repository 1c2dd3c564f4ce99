"""Once for a server: the service's roles and its database, made by a superuser. Safe to repeat."""

import rich_click as click
import sqlalchemy as sa
from psycopg import sql

from app.config import Settings
from app.db import ROLES, admin_engine
from scripts.support.console import BAD_ARGUMENTS, refusals_exit, settings_or_exit, stop
from tenant_schemas.roles import close_other_databases, close_pool, create_service_roles, open_pool, pool_password


@click.command(help=__doc__)
@click.option(
    "--superuser-url",
    envvar="SUPERUSER_DATABASE_URL",
    required=True,
    help="postgresql://postgres@host/postgres; a password is better put in PGPASSWORD.",
)
@refusals_exit()
def main(superuser_url: str) -> None:
    settings = settings_or_exit()
    app, admin = sa.make_url(settings.database_url), sa.make_url(settings.admin_database_url or settings.database_url)
    if app.username != ROLES.app or admin.username != ROLES.migrator:
        stop(
            f"DATABASE_URL must log in as {ROLES.app} and ADMIN_DATABASE_URL as {ROLES.migrator}: "
            "the roles get the passwords that stand there.",
            BAD_ARGUMENTS,
        )
    create_roles(superuser_url, settings)
    print(f"Database {app.database} and roles {ROLES.owner}, {ROLES.migrator}, {ROLES.app}, {ROLES.backup} are ready.")


def create_roles(superuser_url: str, settings: Settings) -> None:
    """Make the database that DATABASE_URL names if it is missing, and the roles with the passwords of both URLs.

    The login that tenants share is opened or closed, as TENANT_LOGINS says. PostgreSQL's own databases are closed on
    the embedded server only; on another they are the DBA's.
    """
    app, admin = sa.make_url(settings.database_url), sa.make_url(settings.admin_database_url)
    _create_database(superuser_url, str(app.database))
    own = sa.make_url(superuser_url).set(database=app.database).render_as_string(hide_password=False)
    passwords = {ROLES.app: str(app.password), ROLES.migrator: str(admin.password)}
    if settings.backup_database_url:
        passwords[ROLES.backup] = str(sa.make_url(settings.backup_database_url).password)
    with admin_engine(own).begin() as connection:
        create_service_roles(connection, ROLES, passwords)
        if settings.tenant_logins == "shared":
            open_pool(connection, ROLES, pool_password(settings.tenant_secret))
        else:
            close_pool(connection, ROLES)
        if settings.is_embedded:
            close_other_databases(connection)


def _create_database(superuser_url: str, name: str) -> None:
    with admin_engine(superuser_url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        known = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s)"
        if not connection.exec_driver_sql(known, (name,)).scalar_one():
            connection.exec_driver_sql(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)).as_string())


if __name__ == "__main__":
    main()
