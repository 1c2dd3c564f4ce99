"""Refusals of the catalogue."""

from app.errors import NotFound
from app.sql_refusals import sql_refusal


@sql_refusal
class ProductNotFound(NotFound):
    """`productId` names the product."""

    code = "product_not_found"
    sqlstate = "WA023"
    text = "There is no such product."
