"""Cursor-paged lists: `?limit=&cursor=` in, `{"items": […], "nextCursor": …}` out.

A cursor is the position after the last item, signed together with its list: the tenant (or the shared side), the user,
the route and the filters. Any other list refuses it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
from itsdangerous import BadSignature, URLSafeSerializer
from marshmallow import fields

from app.api.fields import Answer, QueryFlag, Schema, Text, coded
from app.current import current_app, g, request
from app.errors import Invalid
from tenant_schemas.context import current_binding
from tenant_schemas.tenant import Tenant

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_COUNTED = 50_000

Item = TypeVar("Item")
Shown = TypeVar("Shown")
Position = list[Any]


class LimitField(fields.Integer):
    """The maximum number of items of a page, in plain digits."""

    least, most = 1, MAX_LIMIT
    default_error_messages = {  # noqa: RUF012
        "invalid": coded("not_an_integer", "A whole number is needed."),
        "out_of_range": coded("limit_out_of_range", f"1 to {MAX_LIMIT}."),
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not re.fullmatch(r"-?[0-9]{1,9}", str(value), re.ASCII):
            raise self.make_error("invalid")
        if not self.least <= int(value) <= self.most:
            raise self.make_error("out_of_range")
        return int(value)


class PageQuery(Schema):
    """The query parameters of every list. Lists with filters extend it."""

    limit = LimitField(load_default=DEFAULT_LIMIT, metadata={"minimum": 1, "maximum": MAX_LIMIT})
    cursor = Text(max_length=1000)


class CountedPageQuery(PageQuery):
    """The query parameters of a list that tells its total if asked."""

    count = QueryFlag(load_default=False, metadata={"description": "answer with `total` too, which costs a scan"})


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Items, and the cursor of the next page; None on the last page."""

    items: Sequence[Item]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class CountedPage(Page[Item]):
    """A page with the list's total: the exact one, or else the least that it is."""

    total: int | None
    is_total_exact: bool | None


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The position to start after, the number of items, and whether the total is asked for."""

    after: Position | None
    limit: int
    is_counted: bool = False


@dataclass(frozen=True, slots=True)
class Found(Generic[Item]):
    """The items of a page, the position after which the next page starts (None at the end), and the total."""

    items: Sequence[Item]
    position: Position | None
    total: int | None = None
    is_total_exact: bool | None = None

    def showing(self, items: Sequence[Shown]) -> "Found[Shown]":
        """The same page with other items for the same rows."""
        return Found(items, self.position, self.total, self.is_total_exact)


def page_schema(item: type[Schema]) -> type[Schema]:
    """The schema of a page of these items."""
    members = {
        "items": fields.List(fields.Nested(item)),
        "next_cursor": fields.String(data_key="nextCursor", allow_none=True),
    }
    name = item.__name__.removesuffix("Schema") + "PageSchema"
    return type(name, (Answer,), members)


def counted_page_schema(item: type[Schema]) -> type[Schema]:
    """The schema of a page of these items, with the total where it is asked for."""
    members = {
        "total": fields.Integer(metadata={"description": "of all pages; only with `count=true`"}),
        "is_total_exact": fields.Boolean(
            data_key="isTotalExact", metadata={"description": "false: there may be more than `total`"}
        ),
        "may_lack": ("total", "is_total_exact"),
    }
    page = page_schema(item)
    return type(page.__name__, (page,), members)


def paginate(
    query: dict[str, Any],
    fetch: Callable[[Position | None, int], Sequence[Item]],
    position_of: Callable[[Item], Position],
) -> Page[Item]:
    """One page. `fetch` gets the position to start after and the number of items to return. It is asked for one more
    than the page shows, which tells whether a next page exists.
    """
    found = fetch(position_in(query), query["limit"] + 1)
    items = found[: query["limit"]]
    more = len(found) > len(items)
    return Page(items, cursor_to(position_of(items[-1]), query) if more else None)


def with_total(page: Page[Item], query: dict[str, Any], count: Callable[[int], int]) -> Page[Item]:
    """The page, with the list's total if the query asks for it. `count` counts up to the given number."""
    if not query["count"]:
        return page
    total = count(MAX_COUNTED + 1)
    return CountedPage(page.items, page.next_cursor, min(total, MAX_COUNTED), total <= MAX_COUNTED)


def page_of(query: dict[str, Any], fetch: Callable[[PageRequest], Found[Item]]) -> Page[Item]:
    """One page of a list whose service finds the next position itself."""
    found = fetch(PageRequest(position_in(query), query["limit"], query.get("count", False)))
    next_cursor = cursor_to(found.position, query) if found.position else None
    if found.total is None:
        return Page(found.items, next_cursor)
    return CountedPage(found.items, next_cursor, found.total, found.is_total_exact)


def position_in(query: dict[str, Any]) -> Position | None:
    """The position in the query's cursor; None without a cursor. Raises Invalid for the cursor of another list."""
    return _read(_signer(query), query["cursor"]) if "cursor" in query else None


def cursor_to(position: Position, query: dict[str, Any]) -> str:
    """The cursor after this position, valid for this list with these filters."""
    signed = _signer(query).dumps(position)
    return signed if isinstance(signed, str) else signed.decode()


def _signer(query: dict[str, Any]) -> URLSafeSerializer:
    filters = {name: value for name, value in query.items() if name not in {"limit", "cursor", "count"}}
    binding = current_binding()
    whose = str(binding.id) if isinstance(binding, Tenant) else binding.value
    scope = [whose, str(g.user_id), request.endpoint, request.view_args or {}, filters]
    salt = orjson.dumps(scope, default=str, option=orjson.OPT_SORT_KEYS)
    return URLSafeSerializer(current_app.config["SECRET_KEY"], salt=b"cursor:" + salt, serializer=orjson)


def _read(signer: URLSafeSerializer, cursor: str) -> Position:
    try:
        position: Position = signer.loads(cursor)
    except BadSignature:
        message = "The cursor belongs to another list, tenant or filter. Start without a cursor."
        raise Invalid.at("cursor", "bad_cursor", message, "query") from None
    return position
