"""Lists of wallets on the wire, of one tenant and of all tenants."""

from marshmallow import fields

from app.api.fields import Choice, Text
from app.api.pagination import PageQuery, page_schema
from app.wallets.schemas import STATUSES, MemberWalletSchema


class WalletListSchema(page_schema(MemberWalletSchema)):  # type: ignore[misc]  # made on the spot
    """A page over several tenants may be short or empty: only `nextCursor` tells whether it is the last."""

    may_lack = ("unavailable",)

    unavailable = fields.List(
        fields.String(), metadata={"description": "tenants that could not be read; only where no tenant was named"}
    )


class WalletListQuery(PageQuery):
    q = Text(max_length=100, description="part of the member's address or name")
    status = Choice(STATUSES)
