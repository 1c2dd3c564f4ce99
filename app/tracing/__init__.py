"""Traces by OpenTelemetry, if the setting OTEL is on. `opentelemetry` is the extra `otel`; only `spans` imports it."""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from flask import Flask

from app.config import ConfigurationError, Settings
from tenant_schemas.tracing import TRACING

if TYPE_CHECKING:
    from app.tracing.spans import Spans


def init_app(app: Flask, settings: Settings) -> None:
    """Trace the requests of this application and their statements. It wraps the application. A request goes on with
    the trace that its `traceparent` names only if TRUSTED_PROXIES names a proxy; otherwise it begins one.

    Raises ConfigurationError if the extra is not installed.
    """
    if settings.otel:
        spans = start_tracing(settings)
        app.wsgi_app = spans.middleware(app.wsgi_app)  # type: ignore[method-assign, assignment]
        app.after_request(spans.describe_request)


def start_tracing(settings: Settings) -> "Spans":
    """Trace the statements of this process, and send its spans to the collector that the variables of OpenTelemetry
    name (OTEL_EXPORTER_OTLP_ENDPOINT). Call it after the process was forked. Raises ConfigurationError.
    """
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        raise ConfigurationError("OTEL is on, and OpenTelemetry is not installed: install the extra `otel`.")
    from app.tracing.spans import exporting_spans  # noqa: PLC0415  It needs the extra.

    spans = exporting_spans(believes_traceparent=settings.trusted_proxies > 0)
    TRACING.tracer = spans
    return spans


def delivery_span(name: str, traceparent: str | None) -> AbstractContextManager[object]:
    """`with delivery_span("webhook", event.traceparent):` around a delivery, so that it belongs to the trace of the
    request that made the event. Without tracing, or without a trace, it does nothing.
    """
    if TRACING.tracer is None or traceparent is None:
        return nullcontext()
    from app.tracing.spans import Spans  # noqa: PLC0415

    return TRACING.tracer.continued(name, traceparent) if isinstance(TRACING.tracer, Spans) else nullcontext()
