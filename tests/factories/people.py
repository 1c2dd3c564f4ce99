"""Makes users, memberships and wallets as the application does, without the cost of hashing passwords."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from flask import Flask

from app.auth.actors import Actor, ActorKind
from app.auth.tokens import TokenMint
from app.db import db
from app.ledger.models import Movement
from app.ledger.service import post
from app.members.service import add_membership
from app.users.models import Role
from app.users.service import add_user
from app.wallets.currencies import main_currency
from app.wallets.service import configure_wallet, open_wallet
from tenant_schemas.flask import connections, shared_side, tenant_context

_SESSION = """
    INSERT INTO shared.sessions (user_id, expires_at) VALUES (%s, now() + interval '1 day') RETURNING id"""


@dataclass(frozen=True, slots=True)
class Person:
    """A user with a token that names no tenant."""

    user_id: UUID
    email: str
    token: str


class People:
    def __init__(self, app: Flask) -> None:
        self.app = app

    def make(
        self, *, password_hash: str | None = None, name: str = "Test Person", is_operator: bool = False, **roles: str
    ) -> Person:
        """A new user; `eur="admin", km="member"` are their roles."""
        with self.app.app_context():
            tenants = {}
            for slug in roles:
                with tenant_context(slug) as tenant:
                    tenants[slug] = tenant
            with shared_side():
                user = add_user(f"{uuid4().hex}@example.com", name, password_hash, is_operator=is_operator)
                for slug, role in roles.items():
                    add_membership(user, tenants[slug], Role(role))
                user_id, known_as = user.id, user.email
                db.session.commit()
            return Person(user_id, known_as, self.token(user_id))

    def token(self, user_id: UUID, tenant_id: UUID | None = None) -> str:
        """An access token of its own session, as a login would issue it."""
        with self.app.app_context():
            ((session_id,),) = connections().shared.one_statement(_SESSION, (user_id,))
        mint: TokenMint = self.app.extensions["token_mint"]
        return mint.issue(user_id, tenant_id, session_id)

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
                    actor=Actor(ActorKind.USER, person.user_id, request_id="test"),
                    credit_limit_minor=credit_limit_minor,
                    status=None,
                )
            db.session.commit()
            if balance_minor:
                post(wallet_id, Movement(type="deposit", amount_minor=balance_minor, idempotency_key=uuid4().hex))
        return wallet_id
