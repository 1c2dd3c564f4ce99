"""The doctor's findings, and the installation that it examines."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from tenant_schemas.migrations.history import Migrations
from tenant_schemas.roles import ServiceRoles
from tenant_schemas.schema_diff.accepted import NOTHING_ACCEPTED, AcceptedDrift
from tenant_schemas.schema_diff.reference import Reference
from tenant_schemas.tenant import Tenant
from tenant_schemas.visits import Visitor


class Severity(StrEnum):
    """An `error` breaks a guarantee of the engine. A `warning` needs an operator's decision."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One deviation: the check that found it, the object (`where`), the deviation (`what`) and the remedy."""

    severity: Severity
    check: str
    where: str
    what: str
    remedy: str


def error(check: str, where: str, what: str, remedy: str) -> Finding:
    return Finding(Severity.ERROR, check, where, what, remedy)


def warning(check: str, where: str, what: str, remedy: str) -> Finding:
    return Finding(Severity.WARNING, check, where, what, remedy)


@dataclass(frozen=True, slots=True)
class Installation:
    """The installation under examination, read in one open db transaction. Checks that read tenants' tables, or let
    PostgreSQL describe them, do so through the visitor.
    """

    connection: Connection
    roles: ServiceRoles
    migrations: Migrations
    tenants: tuple[Tenant, ...]
    shared_logins: bool
    version: int
    is_superuser: bool
    reference: Reference
    is_full: bool
    visitor: Visitor[Connection]
    accepted: AcceptedDrift = NOTHING_ACCEPTED

    def rows(self, query: str, **parameters: Any) -> list[Any]:
        """All rows of a query, as SQLAlchemy's Row. Write a percent sign in the query twice."""
        return list(self.connection.exec_driver_sql(query, parameters))

    @property
    def slugs(self) -> dict[str, str]:
        """The tenants' slugs by role name."""
        return {tenant.role_name: tenant.slug for tenant in self.tenants}

    @property
    def tenant_roles(self) -> list[str]:
        return [tenant.role_name for tenant in self.tenants]

    @property
    def tenant_schemas(self) -> list[str]:
        return [tenant.schema_name for tenant in self.tenants]
