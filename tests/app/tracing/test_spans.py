"""The spans of requests: their names, their traces, what they never contain, and that a db transaction is told."""

from collections.abc import Iterator

import pytest
from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from werkzeug.test import Client

from app import create_app
from app.ledger.group_posting import group_posting
from app.tracing import delivery_span
from app.tracing.spans import Spans
from tenant_schemas.flask import EXTENSION, connections, tenant_context
from tenant_schemas.testing.plugin import Database
from tenant_schemas.tracing import TRACING
from tests.conftest import settings_for
from tests.factories.api import Api
from tests.factories.people import People, Person

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOLD = "SELECT nullif(current_setting('wallet.traceparent', true), '')"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(params=[True])
def traced(
    request: pytest.FixtureRequest, database: Database, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Flask]:
    """The application as OTEL makes it, with an exporter that keeps the spans; whether it believes `traceparent`."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans(provider, believes_traceparent=request.param)
    monkeypatch.setattr(TRACING, "tracer", spans)
    app = create_app(settings_for(database))
    app.wsgi_app = spans.middleware(app.wsgi_app)  # type: ignore[method-assign, assignment]
    app.after_request(spans.describe_request)
    yield app
    app.extensions[EXTENSION].close()
    provider.shutdown()


@pytest.fixture
def member(people: People) -> Person:
    person = people.make(eur="member")
    people.wallet(person, "eur", balance_minor=1000)
    return person


def of_requests(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind.name == "SERVER"]


def test_a_span_has_the_routes_name_and_nothing_of_the_path_or_query(
    traced: Flask, member: Person, exporter: InMemorySpanExporter
) -> None:
    headers = {"Authorization": f"Bearer {member.token}"}
    for path in ("/api/eur/wallet?secret=1", "/secret-path", "/api/wallet/transactions/secret"):
        Client(traced).get(path, headers=headers)
    Client(traced).open("/", method="SECRET")
    names = [span.name for span in of_requests(exporter)]
    assert names == ["GET /api/wallet", "GET", "GET", "HTTP"]
    everything = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "secret" not in everything.lower()
    assert member.token not in everything


def test_a_payment_tells_its_db_transaction_its_trace(
    traced: Flask, member: Person, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Api(traced).post(
        "/api/wallet/payments", member, "eur", json={"amount": "1.00"}, headers={"traceparent": CALLER}
    )
    assert answer.status_code == 201
    (request,) = of_requests(exporter)
    assert f"{request.context.trace_id:032x}" == CALLER.split("-")[1]
    statements = [span for span in exporter.get_finished_spans() if span.kind.name == "CLIENT"]
    posting = next(span for span in statements if "wallet_pay" in str(span.attributes["db.query.text"]))
    assert posting.parent is not None
    assert posting.parent.span_id == request.context.span_id
    assert "1.00" not in posting.to_json()


def test_postgresql_sees_the_span_of_the_statement(traced: Flask, exporter: InMemorySpanExporter) -> None:
    with traced.app_context(), tenant_context("eur") as tenant, delivery_span("webhook", CALLER):
        ((told,),) = connections().engine(tenant).one_statement(TOLD, ())
    (select,) = [span for span in exporter.get_finished_spans() if TOLD in str(span.attributes)]
    assert told == f"{CALLER[:36]}{select.context.span_id:016x}-01"


@pytest.mark.parametrize("traced", [False], indirect=True)
def test_a_clients_trace_is_not_believed_without_a_proxy(traced: Flask, exporter: InMemorySpanExporter) -> None:
    Client(traced).get("/livez", headers={"traceparent": CALLER})
    (request,) = of_requests(exporter)
    assert request.parent is None
    assert f"{request.context.trace_id:032x}" != CALLER.split("-")[1]


def test_a_traced_payment_is_posted_alone(traced: Flask, member: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its event would have the trace of another request."""
    with traced.app_context():
        posting = group_posting()
    monkeypatch.setattr(posting, "_enter", lambda *_: pytest.fail("the payment waited for others"))
    assert Api(traced).post("/api/wallet/payments", member, "eur", json={"amount": "1.00"}).status_code == 201


def test_an_unsampled_trace_is_told_to_nobody(traced: Flask, exporter: InMemorySpanExporter) -> None:
    unsampled = f"{CALLER[:-1]}0"
    with traced.app_context(), tenant_context("eur") as tenant, delivery_span("webhook", unsampled):
        assert connections().engine(tenant).one_statement(TOLD, ()) == [(None,)]
    assert exporter.get_finished_spans() == ()
