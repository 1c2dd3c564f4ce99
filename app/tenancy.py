"""How this application uses the engine: its histories, the revisions that it serves, and its tenant resolvers."""

from typing import Final

from app.config import ROOT
from app.db import ROLES
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.resolvers import Resolver, by_claim, by_header, by_path, by_subdomain

MIGRATIONS: Final = Migrations(ROOT / "setup.cfg", ROLES)

# The first path segments of all routes, existing and planned, which no tenant's slug may equal.
RESERVED_SLUGS: Final = frozenset({"admin", "auth", "me", "orders", "products", "wallet", "wallets"})

# The oldest revisions that this code can serve. Revisions are numbered, so a later one compares as greater. A schema
# newer than the code is served too, because migrations expand before they contract.
OLDEST_SHARED_REVISION: Final = "0015"
OLDEST_TENANT_REVISION: Final = "0023"


def resolvers(base_domain: str) -> tuple[Resolver, ...]:
    """The ways in which a request may name its tenant."""
    known: tuple[Resolver, ...] = (by_claim, by_header, by_path)
    return (*known, by_subdomain(base_domain)) if base_domain else known
