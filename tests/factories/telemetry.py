"""What this process has counted, and the spans that it has made."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.metrics.definitions import REGISTRY
from app.tracing.spans import Spans
from tenant_schemas.tracing import TRACING

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def sample(name: str, **labels: str) -> float:
    """The value of a metric in this process."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


@contextmanager
def traced_spans() -> Iterator[InMemorySpanExporter]:
    """Trace this process during the block, and keep the spans."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    before, TRACING.tracer = TRACING.tracer, Spans(provider, believes_traceparent=True)
    try:
        yield exporter
    finally:
        TRACING.tracer = before
        provider.shutdown()


def traces(exporter: InMemorySpanExporter, name: str) -> list[str]:
    """The trace ids of the spans of this name."""
    return [f"{span.context.trace_id:032x}" for span in exporter.get_finished_spans() if span.name == name]
