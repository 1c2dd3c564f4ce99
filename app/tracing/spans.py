"""The spans of this service: a request, its statements, and a delivery of an event.

A span has the route's template, never the path, and no query, header or body: a path may hold a signed link. Flask's
and psycopg's own instrumentations are not used: the one writes paths and queries into spans, and the other sees no
statement that runs without a cursor, so no payment.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from http import HTTPMethod, HTTPStatus
from typing import TYPE_CHECKING, Final

from flask import Response
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.current import current_request
from app.version import VERSION

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TRACEPARENT: Final = "wallet.traceparent"
SERVICE: Final = "wallet"
METHODS: Final = frozenset(method.value for method in HTTPMethod)
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class Spans:
    """Makes spans by this provider. It is the engine's `Tracer`."""

    def __init__(self, provider: TracerProvider, *, believes_traceparent: bool) -> None:
        self._tracer = provider.get_tracer(SERVICE, VERSION)
        self._believes_traceparent = believes_traceparent

    def middleware(self, wsgi_app: "WSGIApplication") -> "WSGIApplication":
        """The application with a span around each request, until its answer begins."""

        def traced(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            method = environ["REQUEST_METHOD"]
            with self._tracer.start_as_current_span(
                method if method in METHODS else "HTTP", self._caller(environ), SpanKind.SERVER
            ):
                return wsgi_app(environ, start_response)

        return traced

    def _caller(self, environ: "WSGIEnvironment") -> Context:
        told = environ.get("HTTP_TRACEPARENT") if self._believes_traceparent else None
        return _PROPAGATOR.extract({"traceparent": told} if told else {}, Context())

    def describe_request(self, response: Response) -> Response:
        """Name the span by its route. A path without a route is named by its method alone."""
        span, ended = get_current_span(), current_request()
        if ended.url_rule is not None:
            span.update_name(f"{ended.method} {ended.url_rule.rule}")
            span.set_attribute("http.route", ended.url_rule.rule)
            span.set_attribute("http.request.method", ended.method)
        span.set_attribute("http.response.status_code", response.status_code)
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
        return response

    def transaction_setting(self) -> tuple[str, str] | None:
        """The current span as PostgreSQL is told of it, if it is sampled."""
        context = get_current_span().get_span_context()
        if not (context.is_valid and context.trace_flags.sampled):
            return None
        return TRACEPARENT, f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def statement(self, text: str) -> AbstractContextManager[object]:
        """A span of the current request. A statement outside of a trace begins none."""
        if not get_current_span().is_recording():
            return nullcontext()
        attributes = {"db.system.name": "postgresql", "db.query.text": " ".join(text.split())}
        name = text.split(maxsplit=1)[0].upper() if text.strip() else "statement"
        return self._tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def continued(self, name: str, traceparent: str) -> AbstractContextManager[object]:
        """A span that goes on with the trace of a stored `traceparent`."""
        context = _PROPAGATOR.extract({"traceparent": traceparent}, Context())
        return self._tracer.start_as_current_span(name, context, SpanKind.PRODUCER)


def exporting_spans(*, believes_traceparent: bool) -> Spans:
    """Spans that a thread of this process sends to a collector. OpenTelemetry's own variables say where, and how many
    requests are traced (OTEL_TRACES_SAMPLER).
    """
    named = Resource({"service.name": SERVICE, "service.version": VERSION})
    provider = TracerProvider(resource=Resource.create().merge(named).merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider, believes_traceparent=believes_traceparent)
