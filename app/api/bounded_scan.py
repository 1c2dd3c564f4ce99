"""Pages of a filtered list that cost no more in a table of a million rows.

An index gives the rows in the list's order. Filters that no index answers are applied to at most MAX_SCANNED rows a
request. So a page may have fewer items than its limit, or none: only the next cursor tells whether the list ends.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.base import ExecutableOption

from app.api.pagination import MAX_COUNTED, Found, PageRequest, Position
from app.db import db

MAX_SCANNED: Final = MAX_COUNTED
Order = Sequence[InstrumentedAttribute[Any]]
Conditions = Sequence[sa.ColumnElement[bool]]


def scan(
    page: PageRequest,
    query: sa.Select[Any],
    order: Order,
    filters: Conditions = (),
    *,
    options: Sequence[ExecutableOption] = (),
    start: datetime | None = None,
    end: datetime | None = None,
) -> Found[Any]:
    """The page of `query`, which selects one entity, in this order, descending, of the rows that pass the filters.
    `query` has the conditions that the order's index, or another one, answers. `start` (inclusive) and `end`
    (exclusive) are a period of the order's first column. A page after a position does not ask for the end: every
    position is before it, and with both conditions PostgreSQL would scan from the end to the position.

    With `page.is_counted` the total is that of the first MAX_SCANNED rows of the list, exact if there are no more.
    """
    query = query if start is None else query.where(order[0] >= start)
    whole = query if end is None else query.where(order[0] < end)
    ahead = whole if page.after is None else query.where(_after(order, page.after))
    edge = _edge(ahead, order) if filters else None
    asked = ahead if edge is None else ahead.where(_up_to(order, edge))
    asked = asked.where(*filters).order_by(*_sorted(order)).limit(page.limit + 1)
    rows = db.session.scalars(asked.options(*options)).all()
    items = rows[: page.limit]
    position = edge
    if len(rows) > len(items):
        position = [getattr(items[-1], column.key) for column in order]
    total = _total(whole, order, filters) if page.is_counted else (None, None)
    return Found(items, position, *total)


def count_rows(query: sa.Select[Any], most: int) -> int:
    """The number of rows of the query, counted up to `most`."""
    found = query.limit(most).subquery()
    return int(db.session.execute(sa.select(sa.func.count()).select_from(found)).scalar_one())


def _edge(query: sa.Select[Any], order: Order) -> Position | None:
    """The position of the last row that may be scanned; None if fewer rows are left."""
    found = query.with_only_columns(*order).order_by(None).order_by(*_sorted(order))
    row = db.session.execute(found.offset(MAX_SCANNED - 1).limit(1)).one_or_none()
    return None if row is None else list(row)


def _total(query: sa.Select[Any], order: Order, filters: Conditions) -> tuple[int, bool]:
    edge = _edge(query, order)
    if edge is not None:
        query = query.where(_up_to(order, edge))
    # A count names no table; without the flag, SQLAlchemy would drop the one that is counted.
    found = query.with_only_columns(sa.func.count(), maintain_column_froms=True).where(*filters).order_by(None)
    return int(db.session.execute(found).scalar_one()), edge is None


def _sorted(order: Order) -> list[sa.ColumnElement[Any]]:
    return [column.desc() for column in order]


def _after(order: Order, position: Position) -> sa.ColumnElement[bool]:
    return sa.tuple_(*order) < _literals(order, position)


def _up_to(order: Order, position: Position) -> sa.ColumnElement[bool]:
    return sa.tuple_(*order) >= _literals(order, position)


def _literals(order: Order, position: Position) -> sa.Tuple:
    """The position as a row value. A cursor has moments and ids as text."""
    return sa.tuple_(
        *(sa.literal(_value(column, value), column.type) for column, value in zip(order, position, strict=True))
    )


def _value(column: InstrumentedAttribute[Any], value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if isinstance(column.type, sa.DateTime):
        return datetime.fromisoformat(value)
    return UUID(value) if isinstance(column.type, sa.Uuid) else value
