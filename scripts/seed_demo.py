"""Create demo users, wallets, payments and a small catalogue on the embedded server. Safe to repeat: nothing is created
or posted twice.

It needs the tenants eur and km. It refuses to run if DATABASE_URL is set, because the users have a known password
(DEMO_PASSWORD, or wallet-demo-login).

Example:
    python -m scripts.seed_demo

Exit codes: 0 the demo data is there; 1 it could not be created; 2 bad arguments, a DEMO_PASSWORD that the API would
refuse, or DATABASE_URL is set.
"""

import os
from typing import Any
from uuid import UUID

import rich_click as click
from flask import Flask
from marshmallow import ValidationError

from app import create_app
from app.auth.passwords import hash_password
from app.auth.schemas import NewPassword
from app.catalogue.service import list_products
from app.config import Settings
from app.db import admin_engine, db
from app.errors import Conflict
from app.holds import service as holds
from app.ledger.errors import IdempotencyKeyReused
from app.ledger.models import Movement
from app.ledger.service import post
from app.members.service import add_membership
from app.orders import service as orders
from app.users.models import Role, User
from app.users.service import add_user, find_user
from app.wallets.currencies import main_currency
from app.wallets.service import open_wallet
from scripts.load_catalogue import load_catalogue
from scripts.support.console import BAD_ARGUMENTS, exit_with, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.flask import shared_side, tenant_context

TENANTS: dict[str, dict[str, Any]] = {
    "eur": {"currency": "EUR", "currencies": ["EUR", "USD", "JPY"], "locale": "de_DE"},
    "km": {"currency": "BAM", "locale": "bs_BA"},
}
PEOPLE = {
    "member@example.com": {"eur": Role.MEMBER, "km": Role.MEMBER},
    "admin@example.com": {"eur": Role.ADMIN, "km": Role.ADMIN},
    "operator@example.com": {},
    "outsider@example.com": {"km": Role.MEMBER},
}
MOVEMENTS: tuple[tuple[str, int, str, dict[str, Any]], ...] = (
    ("deposit", 10_000, "demo-1", {"reference": "bank transfer 1"}),
    ("payment", 2_550, "demo-2", {"order_id": "demo-order-1", "description": "Groceries"}),
    ("payment", 1_299, "demo-3", {"order_id": "demo-order-2", "description": "Books"}),
    ("deposit", 5_000, "demo-4", {"reference": "bank transfer 2"}),
)
BOUGHT = ("bread", "honey")
CATALOGUE: dict[str, list[dict[str, Any]]] = {
    "categories": [{"code": "books", "name": "Books"}, {"code": "groceries", "name": "Groceries"}],
    "products": [
        {
            "sku": "atlas",
            "name": "Atlas",
            "category": "books",
            "description": "With maps of all lands",
            "prices": {"EUR": "24.90", "BAM": "48.70", "JPY": "4200"},
        },
        {"sku": "bread", "name": "Bread", "category": "groceries", "prices": {"EUR": "2.40", "BAM": "4.70"}},
        {"sku": "coffee", "name": "Coffee", "category": "groceries", "prices": {"EUR": "6.80", "BAM": "13.30"}},
        {"sku": "honey", "name": "Honey", "category": "groceries", "prices": {"EUR": "7.50", "BAM": "14.65"}},
        {"sku": "novel", "name": "Novel", "category": "books", "prices": {"EUR": "12.99", "BAM": "25.40"}},
    ],
}


@click.command(cls=Script, help=__doc__)
def main() -> None:
    settings = settings_or_exit()
    if not settings.is_embedded:
        exit_with("The demo data is for the embedded server only, and DATABASE_URL is set: unset it.", BAD_ARGUMENTS)
    seed(settings)


def demo_password() -> str:
    """The password of the demo users. Exits 2 for one that the API would refuse."""
    password = os.environ.get("DEMO_PASSWORD") or "wallet-demo-login"
    try:
        NewPassword().deserialize(password)
    except ValidationError as error:
        exit_with(f"DEMO_PASSWORD: {' '.join(error.messages)}", BAD_ARGUMENTS)
    return password


def seed(settings: Settings) -> None:
    """Create the missing demo data in the tenants eur and km, which must exist. The catalogue is loaded as the
    migrator, all other data through the service's own functions.
    """
    load_catalogue(admin_engine(settings.admin_database_url), CATALOGUE)
    app = create_app(settings)
    with app.app_context():
        people = {email: _add_person(email) for email in PEOPLE}
        for slug in TENANTS:
            _fill_tenant(app, slug, people)


def _add_person(email: str) -> UUID:
    """Returns the id of the user, who may exist."""
    with shared_side():
        user = find_user(email)
        if user is None:
            name = email.partition("@")[0].capitalize()
            is_operator = email.startswith("operator@")
            user = add_user(email, f"Demo {name}", hash_password(demo_password()), is_operator=is_operator)
        elif os.environ.get("DEMO_PASSWORD"):
            user.password_hash = hash_password(demo_password())
        user_id = user.id
        db.session.commit()
    return user_id


def _fill_tenant(app: Flask, slug: str, people: dict[str, UUID]) -> None:
    roles_here = {email: roles[slug] for email, roles in PEOPLE.items() if slug in roles}
    with tenant_context(slug) as tenant:
        pass
    with shared_side():
        for email, role in roles_here.items():
            user = db.session.get_one(User, people[email])
            add_membership(user, tenant, role)
        db.session.commit()
    with tenant_context(tenant):
        wallet_ids = {email: open_wallet(people[email], main_currency())[0].id for email in roles_here}
        db.session.commit()
        for type_, amount_minor, key, texts in MOVEMENTS:
            admin_id = people["admin@example.com"] if type_ == "deposit" else None
            movement = Movement(type=type_, amount_minor=amount_minor, idempotency_key=key, admin_id=admin_id, **texts)
            post(wallet_ids["member@example.com"], movement)
        try:
            _place_order_and_hold(people["member@example.com"])
        except (Conflict, IdempotencyKeyReused):  # The wallet has no funds or is frozen, or the catalogue has changed.
            db.session.rollback()


def _place_order_and_hold(member_id: UUID) -> None:
    """An order of bread and honey, and a hold for a room."""
    currency = main_currency()
    found = [product for sku in BOUGHT for product in list_products(currency, after=None, limit=200, q=sku)]
    items = [(product.id, 2) for product in found if product.sku in BOUGHT]
    db.session.commit()
    orders.place(member_id, currency, items, idempotency_key="demo-5")
    holds.authorise(
        *(member_id, currency),
        amount_minor=2_000,
        idempotency_key="demo-6",
        expires_at=None,
        order_id="demo-room",
        description="A room",
    )


if __name__ == "__main__":
    main()
