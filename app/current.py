"""The current request, its `g` and its application: Flask's `request`, `g` and `current_app`, found in one Python call.

Flask's proxies need three calls and a suppressed AttributeError for each attribute, which was a quarter of a payment's
time outside the database. Outside a request these raise LookupError.
"""

from typing import Any, Final, cast

from flask import Flask, Request
from flask.globals import _cv_app, _cv_request


class _CurrentRequest:
    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        return getattr(_cv_request.get().request, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_cv_request.get().request, name, value)


class _CurrentGlobals:
    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        return getattr(_cv_app.get().g, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_cv_app.get().g, name, value)

    def __contains__(self, name: str) -> bool:
        return name in _cv_app.get().g


class _CurrentApplication:
    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        return getattr(_cv_app.get().app, name)


request: Final = cast(Request, _CurrentRequest())
g: Final[Any] = _CurrentGlobals()
current_app: Final = cast(Flask, _CurrentApplication())


def current_request() -> Request:
    """The request itself, for code that reads it several times."""
    return _cv_request.get().request


def current_application() -> Flask:
    """The application itself, for code that uses it in another thread."""
    return _cv_app.get().app


def current_globals() -> Any:
    """`g` itself, for code that reads it several times."""
    return _cv_app.get().g
