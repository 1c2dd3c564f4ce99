"""Flask with fewer Python calls for each request: no view is a coroutine, no hook belongs to one blueprint, and the
host does not select the route. Where one of that changes, Flask's own method is called.
"""

from functools import cached_property, lru_cache
from typing import Any, Final, NoReturn, cast
from urllib.parse import urlsplit, urlunsplit

import flask
from flask import Flask, Response, request_tearing_down
from flask.ctx import _AppCtxGlobals
from flask.globals import request_ctx
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import ImmutableMultiDict, MultiDict
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Map, MapAdapter, RequestRedirect, Rule
from werkzeug.wsgi import get_host

from app.current import current_request

_NO_ARGUMENTS: Final[MultiDict[str, str]] = ImmutableMultiDict()
_CURRENT: Final = object()  # Stands for the exception that is being handled.
_EMPTY_MAP: Final = Map()
StaticRules = dict[tuple[str, str], Rule]


class Request(flask.Request):
    """Flask's request, without parsers for a query and files that are not there."""

    @cached_property
    def args(self) -> MultiDict[str, str]:
        """Raises BadRequest for bytes that are not UTF-8. Flask would raise UnicodeDecodeError."""
        try:
            return super().args if self.query_string else _NO_ARGUMENTS
        except UnicodeDecodeError:
            raise BadRequest("The query is not UTF-8.") from None

    def close(self) -> None:
        if "files" in self.__dict__:
            super().close()


class Globals(_AppCtxGlobals):
    """Flask's `g`. Its attributes are set without a Python function."""

    __setattr__ = object.__setattr__  # type: ignore[assignment]


class Application(Flask):
    """See the top of this file."""

    request_class = Request
    app_ctx_globals_class = Globals

    def ensure_sync(self, func: Any) -> Any:
        """The function itself: Flask would examine at every call whether it is a coroutine function."""
        return func

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """Flask's adapter, with routes without variables found at once."""
        if request is None and self.config["SERVER_NAME"] is None:
            return None
        if request is None or not self._is_usual(request):
            return super().create_url_adapter(request)
        environ = request.environ
        request.host = host = get_host(environ)
        request.max_content_length = self.config["MAX_CONTENT_LENGTH"]  # Flask would look it up at each access.
        return _Adapter(
            self.url_map,
            _server_name(host),
            script_name="",
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=request.path if environ.get("PATH_INFO") else "",
            default_method=environ["REQUEST_METHOD"],
            query_args=request.query_string.decode(errors="replace"),
            static_rules=self.static_rules,
        )

    def _is_usual(self, request: flask.Request) -> bool:
        environ, config = request.environ, self.config
        return not (
            environ.get("SCRIPT_NAME")
            or "HTTP_UPGRADE" in environ
            or self.url_map.host_matching
            or self.url_map.default_subdomain
            or config["SERVER_NAME"] is not None
            or config["TRUSTED_HOSTS"] is not None
        )

    @cached_property
    def static_rules(self) -> StaticRules:
        """The rules without variables, by method and path."""
        return static_rules(self.url_map)

    def raise_routing_exception(self, request: flask.Request) -> NoReturn:
        """As Flask's; a redirect to another path of the host names the path alone. Werkzeug would name the scheme too,
        and does not know it behind a proxy that ends TLS.
        """
        error = request.routing_exception
        if isinstance(error, RequestRedirect) and urlsplit(error.new_url).netloc == request.host.lower():
            raise RequestRedirect(path_of_url(error.new_url))
        super().raise_routing_exception(request)

    def preprocess_request(self) -> ResponseReturnValue | None:
        if len(self.before_request_funcs) > 1 or self.url_value_preprocessors:
            return super().preprocess_request()
        for hook in self.before_request_funcs[None]:
            returned: Any = hook()
            if returned is not None:
                return cast(ResponseReturnValue, returned)
        return None

    def dispatch_request(self) -> ResponseReturnValue:
        found: Any = current_request()
        if found.routing_exception is not None or found.method == "OPTIONS":
            return super().dispatch_request()
        return cast(ResponseReturnValue, self.view_functions[found.url_rule.endpoint](**found.view_args))

    def process_response(self, response: Response) -> Response:
        context = request_ctx._get_current_object()  # type: ignore[attr-defined]
        is_usual = len(self.after_request_funcs) == 1 and not context._after_request_functions
        if not is_usual or not self.session_interface.is_null_session(context._session):
            return super().process_response(response)
        finished: Any = response
        for hook in reversed(self.after_request_funcs[None]):
            finished = hook(finished)
        return cast(Response, finished)

    def do_teardown_request(self, exc: Any = _CURRENT) -> None:
        if exc is _CURRENT:
            super().do_teardown_request()
        elif len(self.teardown_request_funcs) > 1 or request_tearing_down.receivers:
            super().do_teardown_request(exc)
        else:
            for hook in reversed(self.teardown_request_funcs[None]):
                hook(exc)


class _Adapter(MapAdapter):
    def __init__(self, url_map: Map, server_name: str, *, static_rules: StaticRules, **about: Any) -> None:
        super().__init__(url_map, server_name, **about)
        self._static_rules = static_rules

    def match(self, *arguments: Any, **named: Any) -> Any:
        """As Werkzeug's; a route without variables needs no search."""
        if not arguments and named == {"return_rule": True}:
            found = self._static_rules.get((self.default_method, self.path_info))
            if found is not None:
                return found, {}
        return super().match(*arguments, **named)


def static_rules(url_map: Map) -> StaticRules:
    """The rules of the map without variables, by method and path. A path that several rules share is left out."""
    found: StaticRules = {}
    shared: set[tuple[str, str]] = set()
    for rule in url_map.iter_rules():
        is_plain = not (rule.arguments or rule.defaults or rule.redirect_to or rule.alias or rule.build_only)
        for method in rule.methods or () if is_plain and not rule.websocket else ():
            place = (method, rule.rule)
            shared.update({place} if place in found else ())
            found[place] = rule
    return {place: rule for place, rule in found.items() if place not in shared}


def path_of_url(url: str) -> str:
    """The path and the query of the URL. The path begins with one slash: `//name/` would be the path of a host."""
    parts = urlsplit(url)
    return urlunsplit(("", "", f"/{parts.path.lstrip('/')}", parts.query, ""))


@lru_cache(1024)
def _server_name(host: str) -> str:
    """As Werkzeug's `Map.bind` makes it of a host. Raises BadHost."""
    return _EMPTY_MAP.bind(host).server_name
