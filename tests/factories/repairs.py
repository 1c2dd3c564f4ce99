"""Repairs of the tenant eur of a test's database, in a db transaction that is rolled back."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import Connection

from app.tenancy import MIGRATIONS
from tenant_schemas.repair.adoption import Adoption
from tenant_schemas.repair.repair import Repaired, Repairer
from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import broken


def repair(
    connection: Connection, database: Database, adoption: Adoption | None = None, *, can_log_in: bool = True
) -> Repaired:
    """Repair the tenant eur in the open db transaction."""
    repairer = Repairer(MIGRATIONS, database.tenant_secret, lambda _: can_log_in)
    return repairer.repair(connection, "eur", adoption)


@contextmanager
def unregistered(database: Database) -> Iterator[tuple[Connection, UUID]]:
    """The tenant eur without its row, and its id."""
    with broken(database, "DELETE FROM shared.memberships WHERE tenant_role = 'tenant_eur'") as connection:
        tenant_id = database.tenant("eur").id
        for table in ("sessions", "api_keys", "invitations", "former_members"):
            exists = connection.exec_driver_sql("SELECT to_regclass(%s)", (f"shared.{table}",)).scalar_one()
            if exists:
                connection.exec_driver_sql(f"DELETE FROM shared.{table} WHERE tenant_id = %s", (tenant_id,))
        connection.exec_driver_sql("DELETE FROM shared.tenants WHERE slug = 'eur'")
        yield connection, tenant_id
