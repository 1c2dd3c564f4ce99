"""Adds products to the catalogue as the operators' script does."""

from typing import Any
from uuid import UUID, uuid4

from scripts.load_catalogue import load_catalogue
from tenant_schemas.testing.plugin import Database


class Catalogue:
    """Products of one test, in a category of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.category = f"test-{uuid4().hex}"

    def product(self, sku: str | None = None, **told: Any) -> tuple[str, UUID]:
        """Make or change a product; `EUR="1.00"` and the like are its prices. Returns its sku and id."""
        prices = {name: told.pop(name) for name in list(told) if name.isupper()}
        sku = sku or f"sku-{uuid4().hex}"
        entry = {"sku": sku, "name": "A thing", "category": self.category, "prices": prices} | told
        category = {"code": self.category, "name": "Tests"}
        engine = self.database.admin_engine()
        load_catalogue(engine, {"categories": [category], "products": [entry]})
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT id FROM shared.products WHERE sku = %s", (sku,))
            return sku, found.scalar_one()
