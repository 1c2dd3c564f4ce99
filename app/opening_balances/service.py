"""The verbs of the migration: open missing wallets, post balances, compare them. Each is one call for many members.

They work on the bound tenant, in the session's db transaction, and commit nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.db import db
from app.opening_balances.calculation import Balance
from app.opening_balances.models import Reconciliation
from app.opening_balances.rows import Member
from app.users.models import Membership, User, all_members, member_directory
from tenant_schemas.context import current_tenant

_FOUND = "user_id, currency, calculated_minor, posted_minor, difference_minor, refused_by"
_OPEN = sa.text("SELECT wallets_open_missing_v1(:user_ids, :currency)").bindparams(
    sa.bindparam("user_ids", type_=ARRAY(sa.Uuid))
)
_POST = sa.text(
    f"SELECT {', '.join(f'(reconciled).{name}' for name in _FOUND.split(', '))}, moved_minor, limit_raised"  # noqa: S608
    " FROM openings_post_v2(:items, :currency, :raises_limits)"
).bindparams(sa.bindparam("items", type_=JSONB))
_COMPARE = sa.text(
    f"SELECT {_FOUND}, 0, false FROM openings_compare_v1(:items, :currency, :refusals)"  # noqa: S608
).bindparams(sa.bindparam("items", type_=JSONB), sa.bindparam("refusals", type_=JSONB))


@dataclass(frozen=True, slots=True)
class Outcome:
    """A member's calculated balance, the posted opening balance, and the result of this call."""

    user_id: UUID
    currency: str
    calculated_minor: int
    posted_minor: int
    difference_minor: int
    refused_by: str | None
    moved_minor: int
    limit_raised: bool


def count_members() -> int:
    query = sa.select(sa.func.count()).where(Membership.tenant_id == current_tenant().id)
    return db.session.execute(query).scalar_one()


def member_ids(*, after: UUID | None, limit: int) -> Sequence[UUID]:
    """The ids of the tenant's members, in order."""
    query = sa.select(Membership.user_id).where(Membership.tenant_id == current_tenant().id)
    if after is not None:
        query = query.where(Membership.user_id > after)
    return db.session.scalars(query.order_by(Membership.user_id).limit(limit)).all()


def directory() -> dict[str, Member]:
    """The tenant's members by address and by id."""
    found: dict[str, Member] = {}
    for user_id, email in db.session.execute(sa.select(member_directory.c.user_id, member_directory.c.email)):
        found[email] = found[str(user_id)] = Member(str(user_id), email)
    return found


def users_among(names: Sequence[str]) -> list[str]:
    """Those of the given texts that are addresses or ids of users in any tenant. Works on the shared side."""
    known = (
        sa.select(User.email.label("name"))
        .where(User.email.in_(names))
        .union_all(
            sa.select(sa.cast(User.id, sa.Text)).where(User.id.in_([UUID(name) for name in names if _is_id(name)]))
        )
    )
    return list(db.session.scalars(known))


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def open_missing(user_ids: Sequence[UUID], currency: str) -> int:
    """Open a wallet for each of these members without one in the currency. Returns the number of opened wallets."""
    opened: int = db.session.execute(_OPEN, {"user_ids": list(user_ids), "currency": currency}).scalar_one()
    return opened


def post_openings(balances: Sequence[Balance], *, raises_limits: bool) -> list[Outcome]:
    """Post balances of one currency as opening transactions; amounts posted before are not repeated. Opens missing
    wallets and locks all of them, by id.
    """
    parameters = {"items": _items(balances), "currency": balances[0].currency, "raises_limits": raises_limits}
    return [Outcome(*row) for row in db.session.execute(_POST, parameters)]


def compare_openings(balances: Sequence[Balance], refusals: Mapping[str, str | None] | None = None) -> list[Outcome]:
    """Compare balances of one currency with the posted opening transactions, and store the result, with `refusals` by
    user.
    """
    parameters = {"items": _items(balances), "currency": balances[0].currency, "refusals": dict(refusals or {})}
    return [Outcome(*row) for row in db.session.execute(_COMPARE, parameters)]


def _items(balances: Sequence[Balance]) -> list[dict[str, Any]]:
    return [balance._asdict() for balance in balances]


def count_remembered() -> int:
    return db.session.execute(sa.select(sa.func.count()).select_from(Reconciliation)).scalar_one()


def remembered(*, after: tuple[UUID, str] | None, limit: int) -> Sequence[Reconciliation]:
    """The stored results of imports and comparisons, by user and currency."""
    order = (Reconciliation.user_id, Reconciliation.currency)
    query = sa.select(Reconciliation).order_by(*order).limit(limit)
    if after is not None:
        query = query.where(sa.tuple_(*order) > sa.tuple_(*map(sa.literal, after)))
    return db.session.scalars(query).all()


def emails_of(user_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The addresses of those users whom the tenant knows, as members or as former ones."""
    who = all_members.c
    query = sa.select(who.user_id, who.email).where(who.user_id == sa.any_(sa.literal(list(user_ids), ARRAY(sa.Uuid))))
    return {row.user_id: row.email for row in db.session.execute(query)}
