"""The members and former members of the bound tenant by id, as the tenant's login sees them in `all_members`."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from app.db import db
from app.users.models import all_members

# The feature `wallets` is above users, so its model can't be imported.
_wallets = sa.table("wallets", sa.column("id", sa.Uuid), sa.column("user_id", sa.Uuid), sa.column("currency", sa.Text))


@dataclass(frozen=True, slots=True)
class Person:
    """A user as the tenant knows them. A former member has a `removed_at`; address and name are None for a user whom
    the tenant has forgotten, or never had.
    """

    id: UUID
    email: str | None = None
    name: str | None = None
    removed_at: datetime | None = None


def people(user_ids: Collection[UUID]) -> dict[UUID, Person]:
    """These users, by id, in one query; without address and name those whom the tenant does not know.

    The ids are constants of the query. PostgreSQL pushes no condition of a join into the view, which is a security
    barrier, so a join would read all members.
    """
    if not user_ids:
        return {}
    who = all_members.c
    query = sa.select(who.user_id, who.email, who.name, who.removed_at).where(who.user_id.in_(user_ids))
    found = {row.user_id: Person(*row) for row in db.session.execute(query)}
    return {user_id: found.get(user_id) or Person(user_id) for user_id in user_ids}


def wallet_owners(wallet_ids: Collection[UUID]) -> dict[UUID, tuple[Person, str]]:
    """The members of these wallets and the wallets' currencies, by the wallet's id, in two queries."""
    if not wallet_ids:
        return {}
    wallet = _wallets.c
    query = sa.select(wallet.id, wallet.user_id, wallet.currency).where(wallet.id.in_(wallet_ids))
    rows = db.session.execute(query).all()
    known = people({row.user_id for row in rows})
    return {row.id: (known[row.user_id], row.currency) for row in rows}
