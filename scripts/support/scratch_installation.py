"""A throw-away installation: embedded server, roles, and the shared schema and one tenant at their heads."""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from app.db import ROLES, admin_engine
from app.tenancy import MIGRATIONS
from tenant_schemas import embedded
from tenant_schemas.lifecycle.provision import provision
from tenant_schemas.roles import create_service_roles
from tenant_schemas.tenant import Tenant


@contextmanager
def scratch_installation() -> Iterator[tuple[sa.Engine, Tenant]]:
    """Yields the superuser's engine and the tenant. Raises RuntimeError if the shared schema can't be migrated."""
    with tempfile.TemporaryDirectory(prefix="wallet-scratch-") as folder:
        server = embedded.start(Path(folder), settings=("fsync=off",))
        try:
            engine = admin_engine(server.superuser_url())
            with engine.begin() as connection:
                create_service_roles(connection, ROLES, {})
            outcome = MIGRATIONS.migrate_shared(engine)
            if outcome.error:
                raise RuntimeError(outcome.error)
            secret = secrets.token_urlsafe()
            yield (
                engine,
                provision(engine, MIGRATIONS, slug="scratch", name="Scratch", settings={}, tenant_secret=secret),
            )
        finally:
            server.release()
