"""The members of the bound tenant by id, as the tenant's login sees them in `member_directory`."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa

from app.db import db
from app.users.models import member_directory

# The feature `wallets` is above users, so its model can't be imported.
_wallets = sa.table("wallets", sa.column("id", sa.Uuid), sa.column("user_id", sa.Uuid), sa.column("currency", sa.Text))


@dataclass(frozen=True, slots=True)
class Person:
    """A user as the tenant knows them. Address and name are None for a user whom the directory does not have."""

    id: UUID
    email: str | None = None
    name: str | None = None


def people(user_ids: Collection[UUID]) -> dict[UUID, Person]:
    """These users, by id, in one query. Users whom the directory does not have are missing in the result."""
    if not user_ids:
        return {}
    who = member_directory.c
    query = sa.select(who.user_id, who.email, who.name).where(who.user_id.in_(user_ids))
    return {row.user_id: Person(*row) for row in db.session.execute(query)}


def wallet_owners(wallet_ids: Collection[UUID]) -> dict[UUID, tuple[Person, str]]:
    """The members of these wallets and the wallets' currencies, by the wallet's id, in one query."""
    if not wallet_ids:
        return {}
    wallet, who = _wallets.c, member_directory
    query = (
        sa.select(wallet.id, wallet.currency, wallet.user_id, who.c.email, who.c.name)
        .join_from(_wallets, who, who.c.user_id == wallet.user_id, isouter=True)
        .where(wallet.id.in_(wallet_ids))
    )
    return {wallet_id: (Person(*person), currency) for wallet_id, currency, *person in db.session.execute(query)}
