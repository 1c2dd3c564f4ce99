"""The catalogue on the wire."""

from marshmallow import fields

from app.api.fields import Answer, Text, Words
from app.api.money_fields import MoneyField
from app.api.pagination import PageQuery, page_schema
from app.wallets.currencies import CurrencyQuery

STATUSES = Words("ProductStatus", "active", "withdrawn")
MAX_SKU = 64
MAX_CODE = 64


class ProductSchema(Answer):
    id = fields.UUID()
    sku = fields.String()
    name = fields.String()
    description = fields.String(allow_none=True)
    category = fields.String(attribute="category_code", metadata={"description": "the category's code"})
    category_name = fields.String(data_key="categoryName")
    price = MoneyField(attribute="price_minor")
    currency = fields.String(metadata={"description": "ISO 4217"})


ProductPageSchema = page_schema(ProductSchema)


class ProductListQuery(PageQuery, CurrencyQuery):
    category = Text(max_length=MAX_CODE, description="a category's code")
    q = Text(max_length=100, description="part of the product's name or sku")
