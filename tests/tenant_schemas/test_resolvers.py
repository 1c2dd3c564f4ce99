"""The ways in which a request names its tenant; two different names in one request reveal nothing to a stranger."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest

from tenant_schemas.errors import TenancyError, TenantAmbiguous, TenantNotFound, TenantRequired
from tenant_schemas.resolvers import Hint, Resolver, Selection, by_claim, by_header, by_path, by_subdomain, select
from tenant_schemas.tenant import Tenant, TenantStatus
from tenant_schemas.testing.plugin import Database
from tests.factories.slugs import NOT_SLUGS

RESOLVERS: tuple[Resolver, ...] = (by_claim, by_header, by_path, by_subdomain("wallet.example"))


@dataclass(frozen=True)
class Parts:
    """A request with the parts that the resolvers read."""

    host: str = "wallet.example"
    path_slug: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str | None:
        return self.headers.get(name)


def parts(**named: str) -> Parts:
    """`parts(claim=…, header=…, path=…, subdomain=…)`: a request that names a tenant in these ways."""
    return Parts(
        host=f"{named['subdomain']}.wallet.example" if "subdomain" in named else "wallet.example",
        path_slug=named.get("path"),
        claims={"tenant": named["claim"]} if "claim" in named else {},
        headers={"X-Tenant": named["header"]} if "header" in named else {},
    )


def test_the_claim_names_the_tenant_by_id() -> None:
    tenant_id = uuid4()
    assert by_claim(parts(claim=str(tenant_id))) == Hint(tenant_id=tenant_id)
    assert by_claim(parts(header="eur", path="eur", subdomain="eur")) is None


def test_the_header_names_the_tenant_by_slug() -> None:
    assert by_header(parts(header="eur")) == Hint(slug="eur")
    assert by_header(parts(claim=str(uuid4()), path="eur", subdomain="eur")) is None


@pytest.mark.parametrize("header", ["eur", " eur ", "eur,eur", "eur, eur ", ",eur,"])
def test_a_header_that_is_repeated_names_its_tenant_once(header: str) -> None:
    """A server joins repeated headers with commas."""
    assert by_header(parts(header=header)) == Hint(slug="eur")


@pytest.mark.parametrize("header", ["eur,km", "km, eur", "eur, EUR", "eur,unknown"])
def test_a_header_that_is_repeated_with_another_tenant_is_ambiguous(header: str) -> None:
    with pytest.raises(TenantAmbiguous):
        by_header(parts(header=header))


@pytest.mark.parametrize("header", ["", ",", " , "])
def test_a_header_that_is_empty_names_nobody(header: str) -> None:
    assert by_header(parts(header=header)) is None


def test_the_path_names_the_tenant_by_slug() -> None:
    assert by_path(parts(path="eur")) == Hint(slug="eur")
    assert by_path(parts(claim=str(uuid4()), header="eur", subdomain="eur")) is None


@pytest.mark.parametrize(
    ("host", "slug"),
    [
        ("eur.wallet.example", "eur"),
        ("EUR.Wallet.EXAMPLE", "eur"),
        ("eur.wallet.example:8080", "eur"),
        ("eur.wallet.example.", "eur"),
        ("Eur.wallet.example.:443", "eur"),
        ("a.b.wallet.example", "a.b"),
        ("wallet.example", None),
        ("wallet.example:80", None),
        ("eurwallet.example", None),
        ("eur.wallet.example.evil.test", None),
        ("wallet.example.eur", None),
        ("localhost", None),
        ("127.0.0.1:8000", None),
        ("[::1]:8000", None),
        ("[::1]", None),
        ("", None),
    ],
)
def test_the_subdomain_names_the_tenant_whatever_its_case_port_or_last_dot(host: str, slug: str | None) -> None:
    for base_domain in ("wallet.example", "Wallet.Example"):
        assert by_subdomain(base_domain)(Parts(host=host)) == (Hint(slug=slug) if slug is not None else None)


def test_a_request_that_names_nothing_requires_a_tenant() -> None:
    with pytest.raises(TenantRequired):
        select(Parts(), RESOLVERS)


def test_only_the_resolvers_that_were_chosen_count() -> None:
    with pytest.raises(TenantRequired):
        select(parts(header="eur", path="km"), (by_claim, by_subdomain("wallet.example")))
    assert select(parts(header="eur", path="km"), (by_path,)) == Selection("km", None)


def test_namings_that_agree_are_one() -> None:
    tenant_id = uuid4()
    everything = parts(claim=str(tenant_id), header="eur", path="eur", subdomain="eur")
    assert select(everything, RESOLVERS) == Selection("eur", tenant_id)
    assert select(parts(claim=str(tenant_id)), RESOLVERS) == Selection(None, tenant_id)


@pytest.mark.parametrize(
    "named",
    [
        {"header": "eur", "path": "km"},
        {"header": "eur", "subdomain": "km"},
        {"path": "eur", "subdomain": "km"},
        {"header": "eur", "path": "eur", "subdomain": "km"},
        {"header": "eur", "path": "EUR"},
        {"header": "unknown", "path": "noone"},
    ],
)
def test_two_slugs_that_differ_are_ambiguous(named: dict[str, str]) -> None:
    for claim in ({}, {"claim": str(uuid4())}):
        with pytest.raises(TenantAmbiguous):
            select(parts(**named, **claim), RESOLVERS)


@pytest.mark.parametrize("way", ["header", "path"])
@pytest.mark.parametrize("slug", NOT_SLUGS)
def test_what_can_be_nobodys_slug_becomes_the_empty_one(way: str, slug: str) -> None:
    assert select(parts(**{way: slug}), RESOLVERS) == Selection("", None)


def outcome(selection: Selection, tenant: Tenant | None) -> str:
    """The outcome of a selection: the slug, or the complete error."""
    try:
        return selection.confirm(tenant).slug
    except TenancyError as error:
        return f"{type(error).__name__}: {error}"


def test_a_claim_against_a_slug_ends_the_same_whether_or_not_the_slug_exists(database: Database) -> None:
    """The tenant is looked up by the claim alone, so the slug's existence plays no part. The message is the
    same too.
    """
    eur = database.tenant("eur")
    slugs = ["km", "unknown", *NOT_SLUGS]
    ends = {outcome(select(parts(claim=str(eur.id), header=slug), RESOLVERS), eur) for slug in slugs}
    assert len(ends) == 1
    assert ends.pop().startswith("TenantAmbiguous")
    assert outcome(select(parts(claim=str(eur.id), header="eur"), RESOLVERS), eur) == "eur"


def test_unknown_suspended_and_archived_end_the_same(database: Database) -> None:
    eur = database.tenant("eur")
    selection = Selection("eur", None)
    gone = [None, replace(eur, status=TenantStatus.SUSPENDED), replace(eur, status=TenantStatus.ARCHIVED)]
    ends = {outcome(selection, tenant) for tenant in gone}
    assert len(ends) == 1
    assert ends.pop().startswith("TenantNotFound")
    with pytest.raises(TenantNotFound):
        Selection(None, uuid4()).confirm(None)
