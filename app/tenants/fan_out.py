"""Reads several tenants in one request, one after another, each under its own role and in a db transaction of its own.

One request reads a limited number of tenants for a limited time. A tenant that can't be read does not hide the others.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.db import db
from app.errors import Invalid
from app.tenancy import OLDEST_TENANT_REVISION
from app.tenant_settings import stored_settings
from tenant_schemas.context import bound
from tenant_schemas.errors import SchemaBehind, TenancyError
from tenant_schemas.tenant import Tenant

log = structlog.get_logger(__name__)

MOST_TENANTS: Final = 50
MOST_SECONDS: Final = 5.0

Found = TypeVar("Found")


class Unreadable(Exception):
    """The tenant can't be read now. The log has the reason."""


class Budget:
    """The number of tenants that one request may still read, and its deadline. It always allows the first."""

    def __init__(self) -> None:
        self._left = MOST_TENANTS
        self._deadline = monotonic() + MOST_SECONDS

    def allows_another(self) -> bool:
        is_first = self._left == MOST_TENANTS
        self._left -= 1
        return is_first or (self._left >= 0 and monotonic() < self._deadline)


def read_as(tenant: Tenant, read: Callable[[], Found]) -> Found:
    """The result of `read` with the tenant bound, through the session. Commits. Raises Unreadable.

    The session forgets its objects afterwards, because another tenant may have rows with the same keys.
    """
    try:
        with bound(tenant):
            stored_settings(tenant.settings)
            if tenant.revision < OLDEST_TENANT_REVISION:
                raise SchemaBehind("This tenant is being migrated.")
            found = read()
            db.session.expunge_all()
            db.session.commit()
            return found
    except (Invalid, TenancyError, SQLAlchemyError, psycopg.Error) as error:
        _give_up()
        log.warning("tenant_unreadable", tenant=tenant.slug, error=str(getattr(error, "orig", None) or error))
        raise Unreadable(tenant.slug) from error


def _give_up() -> None:
    """Roll back. If the connection has ended meanwhile, for instance by the tenant's idle_in_transaction time-out, the
    session forgets it.
    """
    try:
        db.session.rollback()
    except SQLAlchemyError:
        db.session().invalidate()
