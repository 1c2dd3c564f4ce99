"""Finds the tenant that a request names, and refuses a request that names two.

A resolver is a function from a request to a Hint or None. The signed claim names a tenant by id. The other resolvers
name it by slug, and must agree with the claim and with each other. No resolver queries the database.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from tenant_schemas.errors import TenantAmbiguous, TenantNotFound, TenantRequired
from tenant_schemas.tenant import Tenant, TenantStatus, is_name


class RequestParts(Protocol):
    """The parts of a request that a resolver may read."""

    @property
    def host(self) -> str: ...
    @property
    def path_slug(self) -> str | None: ...
    @property
    def claims(self) -> Mapping[str, Any]: ...
    def header(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Hint:
    """The name of a tenant in a request: its slug, or its id if the name is signed."""

    slug: str | None = None
    tenant_id: UUID | None = None


Resolver = Callable[[RequestParts], Hint | None]


def by_claim(request: RequestParts) -> Hint | None:
    """The claim `tenant` of the access token. It is the tenant's id, so that a reused slug revives no old token."""
    claimed = request.claims.get("tenant")
    return Hint(tenant_id=UUID(claimed)) if claimed else None


def by_header(request: RequestParts) -> Hint | None:
    """The header `X-Tenant: eur`. Servers join repeated headers with commas. Raises TenantAmbiguous if they differ."""
    named = request.header("X-Tenant")
    if not named:
        return None
    slugs = {slug.strip() for slug in named.split(",")} - {""}
    if len(slugs) > 1:
        raise TenantAmbiguous("X-Tenant names more than one tenant.")
    return Hint(slug=slugs.pop()) if slugs else None


def by_path(request: RequestParts) -> Hint | None:
    """The path `/api/eur/wallet`. The slug is removed from the path before routing."""
    slug = request.path_slug
    return Hint(slug=slug) if slug else None


def by_subdomain(base_domain: str) -> Resolver:
    """The host `eur.wallet.example` for the base domain `wallet.example`. Case does not matter (RFC 4343)."""
    suffix = "." + base_domain.lower()

    def resolve(request: RequestParts) -> Hint | None:
        host = request.host
        host = (host.rpartition(":")[0] if ":" in host else host).lower().rstrip(".")
        return Hint(slug=host.removesuffix(suffix)) if host.endswith(suffix) else None

    return resolve


@dataclass(frozen=True, slots=True)
class Selection:
    """The combined hints of a request."""

    slug: str | None
    tenant_id: UUID | None

    def confirm(self, tenant: Tenant | None, *, allow_archived: bool = False) -> Tenant:
        """Return `tenant`, which was looked up by `tenant_id` if there is one, otherwise by `slug`.

        Raises TenantAmbiguous if the claim and the slug differ, whether the slug exists or not, so that slugs can't be
        probed. Raises TenantNotFound if the tenant is unknown or not active; `allow_archived` accepts archived too.
        """
        if tenant is not None and self.slug is not None and tenant.slug != self.slug:
            raise TenantAmbiguous("The access token is for another tenant than the request names.")
        allowed = (TenantStatus.ACTIVE, TenantStatus.ARCHIVED) if allow_archived else (TenantStatus.ACTIVE,)
        if tenant is None or tenant.status not in allowed:
            raise TenantNotFound("There is no such tenant, or you do not belong to it.")
        return tenant


def select(request: RequestParts, resolvers: Iterable[Resolver]) -> Selection:
    """Combine the hints of a request. Raises TenantRequired if there are none, TenantAmbiguous if two differ."""
    hints = [hint for resolver in resolvers if (hint := resolver(request))]
    if not hints:
        raise TenantRequired("Name a tenant: send X-Tenant, use /api/<tenant>/…, or log in to one.")
    named = hints[0] if len(hints) == 1 else _combined(hints)
    if named.slug is None or is_name(named.slug):
        return Selection(named.slug, named.tenant_id)
    return Selection("", named.tenant_id)  # No tenant has this slug, and it is safe in a query.


def _combined(hints: Sequence[Hint]) -> Hint:
    slugs = {hint.slug for hint in hints if hint.slug is not None}
    tenant_ids = {hint.tenant_id for hint in hints if hint.tenant_id is not None}
    if len(slugs) > 1 or len(tenant_ids) > 1:
        raise TenantAmbiguous("The request names more than one tenant.")
    return Hint(next(iter(slugs), None), next(iter(tenant_ids), None))
