"""Makes users, memberships and wallets the way the application does, without the cost of hashing passwords."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from flask import Flask

from app.auth.tokens import TokenMint
from app.db import db
from app.ledger.service import Movement, post
from app.members.models import Role
from app.members.service import add_membership, add_user
from app.wallets.currencies import main_currency
from app.wallets.service import configure_wallet, open_wallet
from tenant_schemas.flask import shared_side, tenant_context


@dataclass(frozen=True, slots=True)
class Person:
    """A user with a token that names no tenant."""

    user_id: UUID
    email: str
    token: str


class People:
    def __init__(self, app: Flask) -> None:
        self.app = app

    def make(self, *, password_hash: str | None = None, name: str = "Somebody", **roles: str) -> Person:
        """A new user; `eur="admin", km="member"` says where they belong."""
        with self.app.app_context():
            tenants = {}
            for slug in roles:
                with tenant_context(slug) as tenant:
                    tenants[slug] = tenant
            with shared_side():
                user = add_user(f"{uuid4().hex}@example.com", name, password_hash)
                for slug, role in roles.items():
                    add_membership(user, tenants[slug], Role(role))
                db.session.commit()
                return Person(user.id, user.email, self.token(user.id))

    def token(self, user_id: UUID, tenant_id: UUID | None = None) -> str:
        mint: TokenMint = self.app.extensions["token_mint"]
        return mint.issue(user_id, tenant_id)

    def wallet(
        self,
        person: Person,
        slug: str,
        *,
        balance_minor: int = 0,
        credit_limit_minor: int = 0,
        currency: str | None = None,
    ) -> UUID:
        """The person's wallet in the tenant, with this balance deposited and this limit set."""
        with self.app.app_context(), tenant_context(slug):
            wallet, _ = open_wallet(person.user_id, currency or main_currency())
            wallet_id, version = wallet.id, wallet.version
            if credit_limit_minor:
                configure_wallet(
                    wallet_id,
                    version=version,
                    actor_id=person.user_id,
                    credit_limit_minor=credit_limit_minor,
                    status=None,
                    request_id="test",
                )
            db.session.commit()
            if balance_minor:
                post(wallet_id, Movement(type="deposit", amount_minor=balance_minor, idempotency_key=uuid4().hex))
        return wallet_id
