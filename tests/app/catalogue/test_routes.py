"""The catalogue over HTTP: the products on sale in the currency of the tenant."""

from typing import Any

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.api.test_problems import problem_of
from tests.factories.api import ID_OF_NOTHING, Api
from tests.factories.catalogue import Catalogue
from tests.factories.people import People, Person


@pytest.fixture
def catalogue(database: Database) -> Catalogue:
    return Catalogue(database)


@pytest.fixture
def member(app: Flask) -> Person:
    return People(app).make(eur="member", km="member")


def listed(api: Api, member: Person, slug: str, **query: Any) -> list[dict[str, Any]]:
    """All pages."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = api.get("/api/products", member, slug, query_string=query | cursor)
        assert answer.status_code == 200, answer.text
        page: Any = answer.json
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        cursor = {"cursor": page["nextCursor"]}


def test_a_product_is_shown_with_its_price_in_the_tenants_currency(
    api: Api, member: Person, catalogue: Catalogue
) -> None:
    sku, product = catalogue.product(EUR="12.50", BAM="24.45", JPY="2100", name="Atlas", description="With maps")
    expected = {
        "id": str(product),
        "sku": sku,
        "name": "Atlas",
        "description": "With maps",
        "category": catalogue.category,
        "categoryName": "Tests",
    }
    for slug, price, currency in (("eur", "12.50", "EUR"), ("km", "24.45", "BAM")):
        shown = listed(api, member, slug, category=catalogue.category)
        assert shown == [expected | {"price": price, "currency": currency}]


def test_a_product_is_listed_only_where_it_has_a_price_and_while_it_is_not_withdrawn(
    api: Api, member: Person, catalogue: Catalogue
) -> None:
    only_eur, _ = catalogue.product(EUR="1.00")
    only_bam, _ = catalogue.product(BAM="1.00")
    catalogue.product(EUR="1.00", BAM="1.00", status="withdrawn")
    catalogue.product(JPY="1")
    for slug, sku in (("eur", only_eur), ("km", only_bam)):
        assert [item["sku"] for item in listed(api, member, slug, category=catalogue.category)] == [sku]


def test_products_are_paged_by_sku_and_each_is_seen_once(api: Api, member: Person, catalogue: Catalogue) -> None:
    made = {catalogue.product(EUR="1.00")[0] for _ in range(5)}
    seen = [item["sku"] for item in listed(api, member, "eur", category=catalogue.category, limit=2)]
    assert seen == sorted(made)


def test_a_search_finds_part_of_name_or_sku_in_any_case_and_takes_no_wildcards(
    api: Api, member: Person, catalogue: Catalogue
) -> None:
    by_name, _ = catalogue.product(EUR="1.00", name="100% Honey")
    by_sku, _ = catalogue.product(f"{catalogue.category}_HONEY"[-40:], EUR="1.00")
    catalogue.product(EUR="1.00", name="1000 Hone")

    def found(q: str) -> set[str]:
        return {item["sku"] for item in listed(api, member, "eur", category=catalogue.category, q=q)}

    assert found("hONEy") == {by_name, by_sku}
    assert found("100%") == {by_name}
    assert found("_honey") == {by_sku}
    assert listed(api, member, "eur", category="no-such-category") == []


def test_a_cursor_of_one_tenants_list_is_refused_by_the_others(api: Api, member: Person, catalogue: Catalogue) -> None:
    for _ in range(2):
        catalogue.product(EUR="1.00", BAM="1.00")
    query = {"category": catalogue.category, "limit": 1}
    page: Any = api.get("/api/products", member, "eur", query_string=query).json
    refused = api.get("/api/products", member, "km", query_string=query | {"cursor": page["nextCursor"]})
    assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, "bad_cursor")


def test_the_catalogue_is_for_members_of_a_tenant(app: Flask, api: Api, member: Person) -> None:
    assert api.get("/api/products", member).json["code"] == "tenant_required"
    assert api.get("/api/products", People(app).make(), "eur").status_code == 404
    assert api.get("/api/products", None, "eur").status_code == 401


def test_the_service_reads_the_catalogue_and_does_not_write_it(database: Database) -> None:
    from psycopg.errors import InsufficientPrivilege

    connection = database.as_role("wallet_app")
    for table in ("categories", "products", "product_prices"):
        connection.execute(f"TABLE shared.{table}".encode())
        for verb in ("DELETE FROM", "TRUNCATE"):
            with pytest.raises(InsufficientPrivilege):
                connection.execute(f"{verb} shared.{table}".encode())
    for statement in (
        "INSERT INTO shared.categories (code, name) VALUES ('mine', '')",
        "UPDATE shared.products SET name = ''",
        "UPDATE shared.product_prices SET price_minor = 1",
    ):
        with pytest.raises(InsufficientPrivilege):
            connection.execute(statement.encode())


def test_one_product_is_shown_as_it_is_in_the_list(api: Api, member: Person, catalogue: Catalogue) -> None:
    _, product = catalogue.product(EUR="12.50", JPY="2100")
    path = f"/api/products/{product}"
    assert api.get(path, member, "eur").json == listed(api, member, "eur", category=catalogue.category)[0]
    assert api.get(f"{path}?currency=JPY", member, "eur").json["price"] == "2100"
    _, withdrawn = catalogue.product(EUR="1.00", status="withdrawn")
    for missing in (f"{path}?currency=USD", f"/api/products/{withdrawn}", f"/api/products/{ID_OF_NOTHING}"):
        problem_of(api.get(missing, member, "eur"), 404, "product_not_found")
    problem_of(api.get(path, member, "km"), 404, "product_not_found")
