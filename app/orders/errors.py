"""Refusals of orders, by the SQLSTATEs of their SQL functions."""

from app.errors import Conflict, Invalid, NotFound
from app.sql_refusals import sql_refusal


@sql_refusal
class OrderEmpty(Invalid):
    code = "order_empty"
    sqlstate = "WA020"
    text = "An order needs at least one item."


@sql_refusal
class TooManyItems(Invalid):
    """`limit` is the maximum number of items."""

    code = "too_many_items"
    sqlstate = "WA021"
    text = "The order has too many items."


@sql_refusal
class QuantityOutOfRange(Invalid):
    """`productId` names the product, `limit` is the largest quantity."""

    code = "quantity_out_of_range"
    sqlstate = "WA022"
    text = "The quantity of an item is too small or too large."


@sql_refusal
class ProductWithdrawn(Conflict):
    """`productId` names the product."""

    code = "product_withdrawn"
    sqlstate = "WA024"
    text = "The product is no longer sold."


@sql_refusal
class ProductWithoutPrice(Conflict):
    """`productId` names the product, `currency` the currency without a price."""

    code = "product_without_price"
    sqlstate = "WA025"
    text = "The product is not sold in this currency."


@sql_refusal
class OrderNotFound(NotFound):
    code = "order_not_found"
    sqlstate = "WA026"
    text = "You have no such order here."
