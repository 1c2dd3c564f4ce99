"""Lists of wallets on the wire, of one tenant and of all tenants."""

from marshmallow import fields

from app.api.fields import Choice, Identifier, Text, Words
from app.api.money_fields import CurrencyField
from app.api.pagination import CountedPageQuery, counted_page_schema
from app.wallets.schemas import STATUSES, MemberWalletSchema

SORTS = Words("WalletSort", "openedAt", "-openedAt")


class WalletListSchema(counted_page_schema(MemberWalletSchema)):  # type: ignore[misc]  # made on the spot
    """A page over several tenants may be short or empty: only `nextCursor` tells whether it is the last."""

    may_lack = ("unavailable", "total", "is_total_exact")

    unavailable = fields.List(
        fields.String(), metadata={"description": "tenants that could not be read; only where no tenant was named"}
    )


class WalletListQuery(CountedPageQuery):
    q = Text(max_length=100, description="part of the member's address or name")
    status = Choice(STATUSES)
    currency = CurrencyField(description="ISO 4217; all currencies without it")
    user_id = Identifier(data_key="userId", metadata={"description": "the member whose wallets are listed"})
    sort = Choice(SORTS, load_default="openedAt")
