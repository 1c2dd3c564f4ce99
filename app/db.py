"""The database object, and the two families of models: tables of a tenant and tables of the shared schema.

The binding decides which schema a query reaches (see `tenant_schemas.flask`), never the model.
"""

from typing import Final

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import DeclarativeBase

from app.config import Settings
from tenant_schemas.connections import Connections, Limits
from tenant_schemas.flask import TenantDatabase
from tenant_schemas.registry import registry_table
from tenant_schemas.roles import ServiceRoles
from tenant_schemas.sessions import watch_client
from tenant_schemas.tables import engine_tables

ROLES: Final = ServiceRoles.named("wallet")

db = TenantDatabase()


class TenantModel(DeclarativeBase):
    """Tables of every tenant. They name no schema: the search_path selects it."""

    metadata = sa.MetaData()


class SharedModel(DeclarativeBase):
    """Tables of the shared schema. They name it."""

    metadata = sa.MetaData()


tenants = registry_table(SharedModel.metadata)
engine_tables(SharedModel.metadata)


def init_app(app: Flask, settings: Settings) -> None:
    """Configure the application's connection pools. Opens no connection."""
    db.init_tenancy(app, make_connections(settings))


def make_connections(settings: Settings, *, max_connections: int | None = None) -> Connections:
    """The connection pools of a process, with at most this number of connections. Opens none."""
    limits = Limits(
        max_connections=max_connections or settings.max_connections,
        max_tenant_connections=settings.max_tenant_connections,
        tenants_per_connection=settings.tenants_per_connection,
        wait_seconds=settings.connection_wait_seconds,
        statement_timeout_ms=settings.statement_timeout_ms,
        idle_in_transaction_timeout_ms=settings.idle_in_transaction_timeout_ms,
    )
    pool_role = ROLES.pool if settings.tenant_logins == "shared" else None
    return Connections(settings.database_url, settings.tenant_secret, limits, pool_role=pool_role)


def admin_engine(url: str) -> sa.Engine:
    """An engine for scripts: the migrator's login, one connection at a time, with psycopg's own db transactions. The
    server ends its sessions soon after their client has died.
    """
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    sa.event.listen(engine, "connect", lambda session, _: watch_client(session))
    return engine
