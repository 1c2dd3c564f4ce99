"""Maps the SQLSTATEs that a tenant's SQL functions raise to this application's errors."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
import sqlalchemy.exc

from app.errors import ServiceError
from app.money import format_minor

Kind = TypeVar("Kind", bound=type[ServiceError])

_REFUSALS: Final[dict[str, type[ServiceError]]] = {}


def sql_refusal(kind: Kind) -> Kind:
    """Register an error as the name of its `sqlstate`. The decorator of the classes in each feature's `errors.py`."""
    if kind.sqlstate in _REFUSALS:
        raise RuntimeError(f"SQLSTATE {kind.sqlstate} has two names: {_REFUSALS[kind.sqlstate]} and {kind}.")
    _REFUSALS[kind.sqlstate] = kind
    return kind


@contextmanager
def named_refusals() -> Iterator[None]:
    """Raise a registered refusal as its error. Other errors pass unchanged."""
    try:
        yield
    except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
        original = error if isinstance(error, psycopg.Error) else error.orig
        if not isinstance(original, psycopg.Error) or original.sqlstate not in _REFUSALS:
            raise
        raise refusal(original.sqlstate, original.diag.message_detail) from error


def code_of(sqlstate: str) -> str | None:
    """The `code` of the refusal with this SQLSTATE; None if no feature has registered one."""
    kind = _REFUSALS.get(sqlstate)
    return kind.code if kind else None


def refusal(sqlstate: str, detail: str | None) -> ServiceError:
    """The error for a refusal with this SQLSTATE and detail."""
    kind = _REFUSALS[sqlstate]
    return kind(kind.text, _members(detail))


def _members(detail: str | None) -> dict[str, Any]:
    """The members in a refusal's detail, which is JSON; PostgreSQL's own errors have a sentence or nothing there."""
    return shown_members(json.loads(detail)) if detail and detail.startswith("{") else {}


def shown_members(told: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a refusal's detail, as the API shows them. If the detail has a currency, its integers are amounts
    in that currency's minor unit, except `item`, an index.
    """
    currency = told.get("currency")
    return {
        name: format_minor(value, currency) if currency and isinstance(value, int) and name != "item" else value
        for name, value in told.items()
    }
