"""Dry runs of the tenant's SQL functions: the answer or refusal that a request would get, with nothing written."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from app.audit.service import mark_rehearsal
from app.sql_refusals import named_refusals
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_OPEN: Final = "SELECT wallet_rehearse_v1(%s, %s)"


def rehearsed_row(
    statement: str, parameters: dict[str, Any] | tuple[Any, ...], *, opens: tuple[UUID, str] | None = None
) -> Sequence[Any]:
    """The first row of a statement that is then rolled back. `opens` names a member and a currency: their wallet is
    opened before, in the same db transaction, if it is missing.

    Locks what the statement locks until then. Raises MemberNotFound, and what the statement raises.
    """
    mark_rehearsal()
    with connections().engine(current_tenant()).connect() as connection, connection.begin() as db_transaction:
        with named_refusals():
            if opens is not None:
                connection.exec_driver_sql(_OPEN, opens)
            row: Sequence[Any] = connection.exec_driver_sql(statement, parameters).one()
        db_transaction.rollback()
    return row
