"""Bring categories, products and prices of a JSON file into the catalogue that all tenants share.

    {"categories": [{"code": "books", "name": "Books"}],
     "products": [{"sku": "book-1", "name": "Atlas", "category": "books", "description": "With maps",
                   "status": "active", "prices": {"EUR": "12.50", "BAM": "24.45", "JPY": null}}]}

What is there is changed (categories are known by code, products by sku), what is missing is made, what the file does
not name stays as it is. A price of null is taken away. All of the file or, with any fault in it, nothing; each fault
is named by its place. Orders that were placed keep their prices.
"""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import marshmallow
import rich_click as click
import sqlalchemy as sa
from marshmallow import fields, validate
from sqlalchemy.dialects.postgresql import insert

from app.api.fields import Choice, Schema, Text
from app.api.money_fields import AmountField
from app.catalogue.models import Category, Product, ProductPrice
from app.catalogue.schemas import MAX_CODE, MAX_SKU, STATUSES
from app.db import ROLES, admin_engine
from app.errors import Invalid
from app.money import to_minor
from scripts.support.console import BAD_ARGUMENTS, admin_url_or_exit, json_option, settings_or_exit, show_json, stop
from tenant_schemas.roles import become_owner


class CatalogueFaulty(Exception):
    """What is wrong with a catalogue, place by place."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many of each the file named."""

    categories: int
    products: int
    prices: int
    prices_taken_away: int


class CategoryEntry(Schema):
    code = Text(
        required=True,
        max_length=MAX_CODE,
        validate=validate.Regexp(r"[a-z][a-z0-9-]*\Z", error="Lower-case letters, digits and hyphens, a letter first."),
    )
    name = Text(required=True, max_length=200)


class ProductEntry(Schema):
    sku = Text(required=True, max_length=MAX_SKU)
    name = Text(required=True, max_length=200)
    category = Text(required=True, max_length=MAX_CODE)
    description = Text(max_length=2000, load_default=None, allow_none=True)
    status = Choice(*STATUSES, load_default="active")
    prices = fields.Dict(keys=fields.String(), values=AmountField(allow_none=True), load_default=dict)


class CatalogueFile(Schema):
    categories = fields.List(fields.Nested(CategoryEntry), load_default=list)
    products = fields.List(fields.Nested(ProductEntry), load_default=list)


@click.command(help=__doc__)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def main(file: Path, as_json: bool) -> None:
    engine = admin_engine(admin_url_or_exit(settings_or_exit()))
    try:
        loaded = load_catalogue(engine, read_json(file))
    except CatalogueFaulty as error:
        stop(f"{file}: nothing was loaded.\n{error}", BAD_ARGUMENTS)
    if as_json:
        show_json(asdict(loaded))
    else:
        print(f"Loaded {loaded.categories} categories, {loaded.products} products and {loaded.prices} prices.")


def read_json(file: Path) -> Any:
    """Raises CatalogueFaulty with the line that is no JSON, or with a key that an object has twice."""
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_object_without_repeats)
    except json.JSONDecodeError as error:
        raise CatalogueFaulty(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise CatalogueFaulty(str(error)) from None


def load_catalogue(engine: sa.Engine, told: Any) -> Loaded:
    """Bring a catalogue, as its file says it, into `shared`, as the migrator, in one db transaction.

    Locks the rows it names, which no order waits for. Raises CatalogueFaulty, and then nothing was loaded.
    """
    catalogue = _checked(told)
    products = sorted(catalogue["products"], key=lambda product: str(product["sku"]))  # One order: no deadlocks.
    priced = [(product, *price) for product in products for price in product["prices"].items()]
    kept = [(product, currency, amount) for product, currency, amount in priced if amount is not None]
    with engine.begin() as connection:
        become_owner(connection, ROLES)
        _write_categories(connection, catalogue["categories"])
        product_ids = _write_products(connection, products, _category_ids(connection, catalogue["products"]))
        _write_prices(connection, kept, product_ids)
        for product, currency, amount in priced:
            if amount is None:
                _take_price_away(connection, product_ids[product["sku"]], currency)
    return Loaded(len(catalogue["categories"]), len(products), len(kept), len(priced) - len(kept))


def _checked(told: Any) -> dict[str, Any]:
    """The catalogue with its prices in minor units. Raises CatalogueFaulty with all that is wrong in itself."""
    try:
        catalogue: dict[str, Any] = CatalogueFile().load(told)
    except marshmallow.ValidationError as error:
        raise CatalogueFaulty("\n".join(_faults("", error.messages))) from None
    faults = [
        *_repeated("categories", [category["code"] for category in catalogue["categories"]]),
        *_repeated("products", [product["sku"] for product in catalogue["products"]]),
    ]
    for number, product in enumerate(catalogue["products"]):
        for currency, amount in product["prices"].items():
            try:
                product["prices"][currency] = _price_minor(amount, currency)
            except (Invalid, ValueError) as error:
                faults.append(f"{_place(number, product)}.prices.{currency}: {error}")
    if faults:
        raise CatalogueFaulty("\n".join(faults))
    return catalogue


def _price_minor(amount: Decimal | None, currency: str) -> int | None:
    """Raises ValueError for what is no currency, Invalid for what is no amount of it."""
    exact = to_minor(amount or Decimal(0), currency, "price")
    return None if amount is None else exact


def _repeated(kind: str, names: list[str]) -> list[str]:
    return [f"{kind}: {name} is there {count} times" for name, count in Counter(names).items() if count > 1]


def _place(number: int, product: dict[str, Any]) -> str:
    return f"products[{number}] ({product['sku']})"


def _faults(place: str, found: Any) -> list[str]:
    """marshmallow's messages with their places: `products[3].prices.EUR: …`."""
    if not isinstance(found, dict):
        return [f"{place.removesuffix('._schema').removesuffix('_schema') or 'file'}: {said}" for said in found]
    lines = []
    for name, deeper in found.items():
        inside = f"{place}[{name}]" if isinstance(name, int) else f"{place}.{name}".removeprefix(".")
        # Of a key and its value in an object, marshmallow speaks apart.
        lines += _faults(place if name in {"key", "value"} and ".prices." in place else inside, deeper)
    return lines


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} is there twice in one object, beside {pairs[0]}")
    return dict(pairs)


def _write_categories(connection: sa.Connection, categories: list[dict[str, Any]]) -> None:
    if categories:
        statement = insert(Category)
        changed = {"name": statement.excluded.name}
        rows = sorted(categories, key=lambda category: str(category["code"]))
        connection.execute(statement.on_conflict_do_update(index_elements=["code"], set_=changed), rows)


def _category_ids(connection: sa.Connection, products: list[dict[str, Any]]) -> dict[str, UUID]:
    """Of all categories there are, by code. Raises CatalogueFaulty for a product in none of them."""
    known = {row.code: row.id for row in connection.execute(sa.select(Category.code, Category.id))}
    faults = [
        f"{_place(number, product)}.category: there is no category {product['category']}"
        for number, product in enumerate(products)
        if product["category"] not in known
    ]
    if faults:
        raise CatalogueFaulty("\n".join(faults))
    return known


def _write_products(
    connection: sa.Connection, products: list[dict[str, Any]], category_ids: dict[str, UUID]
) -> dict[str, UUID]:
    """Returns the products' ids by sku."""
    if not products:
        return {}
    told = ("sku", "name", "description", "status")
    rows = [
        {name: product[name] for name in told} | {"category_id": category_ids[product["category"]]}
        for product in products
    ]
    statement = insert(Product)
    changed = {name: statement.excluded[name] for name in rows[0] if name != "sku"}
    upsert = statement.on_conflict_do_update(index_elements=["sku"], set_=changed)
    returned = connection.execute(upsert.returning(Product.sku, Product.id), rows)
    return {row.sku: row.id for row in returned}


def _write_prices(
    connection: sa.Connection, prices: list[tuple[dict[str, Any], str, int]], product_ids: dict[str, UUID]
) -> None:
    rows = [
        {"product_id": product_ids[product["sku"]], "currency": currency, "price_minor": price_minor}
        for product, currency, price_minor in prices
    ]
    if rows:
        statement = insert(ProductPrice)
        changed = {"price_minor": statement.excluded.price_minor}
        keys = ["product_id", "currency"]
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)


def _take_price_away(connection: sa.Connection, product_id: UUID, currency: str) -> None:
    is_this = (ProductPrice.product_id == product_id, ProductPrice.currency == currency)
    connection.execute(sa.delete(ProductPrice).where(*is_this))


if __name__ == "__main__":
    main()
