"""Which refusals an operation can give. Views declare them; OpenAPI names them by status, and the tests compare each
refusal that they meet with the declarations.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from app.api.problems import Refusal, status_and_code
from app.api.requests import SAFE_METHODS

View = TypeVar("View", bound=Callable[..., Any])


def refuses(*kinds: Refusal, of_changes_only: bool = False) -> Callable[[View], View]:
    """Declare errors that a view, or a decorator of it, can raise. With `of_changes_only` they are refusals of methods
    that change something.
    """

    def mark(view: View) -> View:
        about = view.__dict__.setdefault("_apidoc", {})
        about["refusals"] = [*about.get("refusals", ()), *((kind, of_changes_only) for kind in kinds)]
        return view

    return mark


def refusals_of(about: Mapping[str, Any], method: str) -> dict[HTTPStatus, list[str]]:
    """The codes that an operation can give, by status, from the declarations of its view (`view._apidoc`)."""
    found: dict[HTTPStatus, list[str]] = {}
    for kind, of_changes_only in about.get("refusals", ()):
        if of_changes_only and method.upper() in SAFE_METHODS:
            continue
        status, code = status_and_code(kind)
        codes = found.setdefault(status, [])
        codes.extend([code] if code not in codes else [])
    return dict(sorted(found.items()))
