"""Load categories, products and prices from a JSON file into the catalogue that all tenants share.

Categories are identified by code, products by sku. Existing ones are updated, missing ones are created, and those that
the file does not contain stay as they are. A price of null is deleted. The file is loaded completely or, if it has a
fault, not at all. Orders that exist keep their prices.

Example:
    python -m scripts.load_catalogue catalogue.json

The file:
    {"categories": [{"code": "books", "name": "Books"}],
     "products": [{"sku": "book-1", "name": "Atlas", "category": "books",
                   "description": "With maps", "status": "active",
                   "prices": {"EUR": "12.50", "BAM": "24.45", "JPY": null}}]}

Prints how many categories, products and prices were loaded.

Exit codes: 0 the file is loaded; 1 the database can't be reached or refused a statement; 2 bad arguments, or the file
has faults: each is printed with its place in the file.
"""

import json
from collections import Counter
from dataclasses import dataclass
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
from app.api.text_fields import LedgerText
from app.catalogue.models import Category, Product, ProductPrice
from app.catalogue.schemas import MAX_CODE, MAX_SKU, STATUSES
from app.db import ROLES, admin_engine
from app.errors import Invalid
from app.money import to_minor
from scripts.support.console import (
    BAD_ARGUMENTS,
    admin_url_or_exit,
    exit_with,
    json_option,
    settings_or_exit,
    show_json,
)
from scripts.support.script import Script
from tenant_schemas.roles import become_owner


class CatalogueFaulty(Exception):
    """The catalogue has faults. The message has one line for each, with its place in the file."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The numbers of categories, products and prices in the file; `prices_taken_away` are the null ones."""

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
    name = LedgerText(required=True, max_length=200)


class ProductEntry(Schema):
    sku = Text(required=True, max_length=MAX_SKU)
    name = LedgerText(required=True, max_length=200)
    category = Text(required=True, max_length=MAX_CODE)
    description = LedgerText(max_length=2000, load_default=None, allow_none=True)
    status = Choice(STATUSES, load_default="active")
    prices = fields.Dict(keys=fields.String(), values=AmountField(allow_none=True), load_default=dict)


class CatalogueFile(Schema):
    categories = fields.List(fields.Nested(CategoryEntry), load_default=list)
    products = fields.List(fields.Nested(ProductEntry), load_default=list)


@click.command(cls=Script, help=__doc__)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def main(file: Path, as_json: bool) -> None:
    engine = admin_engine(admin_url_or_exit(settings_or_exit()))
    try:
        loaded = load_catalogue(engine, read_json(file))
    except CatalogueFaulty as error:
        exit_with(f"{file} has faults, nothing was loaded:\n{error}", BAD_ARGUMENTS)
    if as_json:
        show_json(loaded)
    else:
        print(f"Loaded {loaded.categories} categories, {loaded.products} products and {loaded.prices} prices.")


def read_json(file: Path) -> Any:
    """Raises CatalogueFaulty for invalid JSON, with its line, and for an object with a repeated key."""
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_object_without_repeats)
    except json.JSONDecodeError as error:
        raise CatalogueFaulty(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise CatalogueFaulty(str(error)) from None


def load_catalogue(engine: sa.Engine, content: Any) -> Loaded:
    """Write the content of a catalogue file to the shared schema, as the migrator, in one db transaction.

    Locks the rows it changes; orders only read them and don't wait. Raises CatalogueFaulty, and then commits nothing.
    """
    catalogue = _checked(content)
    products = sorted(
        catalogue["products"], key=lambda product: str(product["sku"])
    )  # Sorted, so that two loads can't deadlock.
    priced = [(product, *price) for product in products for price in product["prices"].items()]
    kept = [(product, currency, amount) for product, currency, amount in priced if amount is not None]
    with engine.begin() as connection:
        become_owner(connection, ROLES)
        _write_categories(connection, catalogue["categories"])
        product_ids = _write_products(connection, products, _category_ids(connection, catalogue["products"]))
        _write_prices(connection, kept, product_ids)
        for product, currency, amount in priced:
            if amount is None:
                _delete_price(connection, product_ids[product["sku"]], currency)
    return Loaded(len(catalogue["categories"]), len(products), len(kept), len(priced) - len(kept))


def _checked(content: Any) -> dict[str, Any]:
    """The catalogue with its prices in minor units. Raises CatalogueFaulty with every fault that needs no database."""
    try:
        catalogue: dict[str, Any] = CatalogueFile().load(content)
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
    """Raises ValueError for an unknown currency, Invalid for a wrong amount of it."""
    exact = to_minor(amount or Decimal(0), currency, "price")
    return None if amount is None else exact


def _repeated(kind: str, names: list[str]) -> list[str]:
    return [f"{kind}: {name} occurs {count} times" for name, count in Counter(names).items() if count > 1]


def _place(number: int, product: dict[str, Any]) -> str:
    return f"products[{number}] ({product['sku']})"


def _faults(place: str, found: Any) -> list[str]:
    """marshmallow's messages with their places: `products[3].prices.EUR: …`."""
    if not isinstance(found, dict):
        return [f"{place.removesuffix('._schema').removesuffix('_schema') or 'file'}: {message}" for message in found]
    lines = []
    for name, deeper in found.items():
        inside = f"{place}[{name}]" if isinstance(name, int) else f"{place}.{name}".removeprefix(".")
        # For an entry of a dict, marshmallow reports the faults of its key and of its value separately.
        lines += _faults(place if name in {"key", "value"} and ".prices." in place else inside, deeper)
    return lines


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} occurs twice in one object, the one with {pairs[0]}")
    return dict(pairs)


def _write_categories(connection: sa.Connection, categories: list[dict[str, Any]]) -> None:
    if categories:
        statement = insert(Category)
        changed = {"name": statement.excluded.name}
        rows = sorted(categories, key=lambda category: str(category["code"]))
        connection.execute(statement.on_conflict_do_update(index_elements=["code"], set_=changed), rows)


def _category_ids(connection: sa.Connection, products: list[dict[str, Any]]) -> dict[str, UUID]:
    """The ids of all categories, by code. Raises CatalogueFaulty for a product whose category does not exist."""
    ids = {row.code: row.id for row in connection.execute(sa.select(Category.code, Category.id))}
    faults = [
        f"{_place(number, product)}.category: there is no category {product['category']}"
        for number, product in enumerate(products)
        if product["category"] not in ids
    ]
    if faults:
        raise CatalogueFaulty("\n".join(faults))
    return ids


def _write_products(
    connection: sa.Connection, products: list[dict[str, Any]], category_ids: dict[str, UUID]
) -> dict[str, UUID]:
    """Returns the products' ids, by sku."""
    if not products:
        return {}
    columns = ("sku", "name", "description", "status")
    rows = [
        {name: product[name] for name in columns} | {"category_id": category_ids[product["category"]]}
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


def _delete_price(connection: sa.Connection, product_id: UUID, currency: str) -> None:
    is_price = (ProductPrice.product_id == product_id, ProductPrice.currency == currency)
    connection.execute(sa.delete(ProductPrice).where(*is_price))


if __name__ == "__main__":
    main()
