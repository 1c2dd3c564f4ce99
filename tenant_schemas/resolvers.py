"""How a request names its tenant, and what happens when it does so twice.

A resolver is a function from a request to a Hint or None. The signed claim says which tenant it is by id; the others
say it by slug and must agree with the claim and with each other. No resolver asks the database.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from tenant_schemas.errors import TenantAmbiguous, TenantNotFound, TenantRequired
from tenant_schemas.tenant import Tenant, TenantStatus, is_name


class RequestParts(Protocol):
    """What a resolver may look at."""

    @property
    def host(self) -> str: ...
    @property
    def path_slug(self) -> str | None: ...
    @property
    def claims(self) -> Mapping[str, Any]: ...
    def header(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Hint:
    """One naming of a tenant: by slug, or by id when the name is signed."""

    slug: str | None = None
    tenant_id: UUID | None = None


Resolver = Callable[[RequestParts], Hint | None]


def by_claim(request: RequestParts) -> Hint | None:
    """The claim `tenant` of the access token: the tenant's id, so that a slug used again revives no old token."""
    claimed = request.claims.get("tenant")
    return Hint(tenant_id=UUID(claimed)) if claimed else None


def by_header(request: RequestParts) -> Hint | None:
    """`X-Tenant: eur`. A server joins repeated headers with commas; two that differ are two tenants."""
    slugs = {slug.strip() for slug in (request.header("X-Tenant") or "").split(",")} - {""}
    if len(slugs) > 1:
        raise TenantAmbiguous("X-Tenant names more than one tenant.")
    return Hint(slug=slugs.pop()) if slugs else None


def by_path(request: RequestParts) -> Hint | None:
    """`/api/eur/wallet`, with the slug taken out of the path before routing."""
    return Hint(slug=request.path_slug) if request.path_slug else None


def by_subdomain(base_domain: str) -> Resolver:
    """`eur.wallet.example` where the base domain is `wallet.example`. Host names have no case (RFC 4343)."""
    suffix = "." + base_domain.lower()

    def resolve(request: RequestParts) -> Hint | None:
        host = request.host.rpartition(":")[0] if ":" in request.host else request.host
        host = host.lower().rstrip(".")
        return Hint(slug=host.removesuffix(suffix)) if host.endswith(suffix) else None

    return resolve


@dataclass(frozen=True, slots=True)
class Selection:
    """What all hints of a request say together."""

    slug: str | None
    tenant_id: UUID | None

    def confirm(self, tenant: Tenant | None, *, allow_archived: bool = False) -> Tenant:
        """Return the tenant that was looked up by `tenant_id` if there is one, else by `slug`.

        Raises TenantAmbiguous if the claim and a slug differ: whether the slug exists plays no part in that, so
        nothing can be probed with it. Raises TenantNotFound for a tenant that is unknown or not active, unless it is
        archived and that will do.
        """
        if tenant is not None and self.slug is not None and tenant.slug != self.slug:
            raise TenantAmbiguous("The access token is for another tenant than the one the request names.")
        will_do = {TenantStatus.ACTIVE, *([TenantStatus.ARCHIVED] if allow_archived else [])}
        if tenant is None or tenant.status not in will_do:
            raise TenantNotFound("There is no such tenant, or you do not belong to it.")
        return tenant


def select(request: RequestParts, resolvers: Iterable[Resolver]) -> Selection:
    """Collect what the request says. Raises TenantRequired if it says nothing, TenantAmbiguous if two slugs differ."""
    hints = [hint for resolver in resolvers if (hint := resolver(request))]
    slugs = {hint.slug for hint in hints if hint.slug is not None}
    tenant_ids = {hint.tenant_id for hint in hints if hint.tenant_id is not None}
    if not hints:
        raise TenantRequired("Name a tenant: send X-Tenant, use /api/<tenant>/…, or log in to one.")
    if len(slugs) > 1 or len(tenant_ids) > 1:
        raise TenantAmbiguous("The request names more than one tenant.")
    slug = next(iter(slugs), None)
    if slug is not None and not is_name(slug):
        slug = ""  # Nobody's slug, and unlike what was sent it can be asked for without care.
    return Selection(slug, next(iter(tenant_ids), None))
