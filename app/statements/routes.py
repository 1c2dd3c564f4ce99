"""Statements of a wallet, and the transactions of all the tenant's wallets, as a list and as a file."""

from typing import Any
from uuid import UUID

from flask import Response

from app.api.blueprint import Blueprint
from app.api.pagination import Page, page_of
from app.api.refusals import View, refuses
from app.auth.access import Access, access, caller
from app.ledger import history
from app.ledger.routes import transaction_filters
from app.ledger.schemas import StaffTransactionPageSchema, TenantTransactionFilters, TenantTransactionListQuery
from app.statements import csv, json, pdf, service
from app.statements.answers import answers_with_file, pdf_answer, streamed
from app.statements.documents.answers import accepted, gives_location, gives_retry_after
from app.statements.documents.errors import TooManyDocuments
from app.statements.documents.schemas import DocumentSchema
from app.statements.documents.service import get_content, request_document
from app.statements.errors import StatementTooLong
from app.statements.schemas import (
    JsonStatementQuery,
    OwnJsonStatementQuery,
    OwnStatementQuery,
    StatementQuery,
    StatementSchema,
)
from app.wallets.currencies import chosen_currency
from app.wallets.errors import WalletNotFound
from app.wallets.models import Wallet
from app.wallets.owners import Owned
from app.wallets.service import get_wallet, own_wallet
from tenant_schemas.context import current_tenant

blueprint = Blueprint("statements", __name__, url_prefix="/api", description="Statements and exports.")


_csv = answers_with_file(blueprint, csv.MEDIA_TYPE, type="string")
_pdf = answers_with_file(blueprint, pdf.MEDIA_TYPE, type="string", format="binary")


def _later(view: View) -> View:
    """Describe in OpenAPI that a view may answer with a job."""
    return gives_location(gives_retry_after(blueprint.alt_response(202, schema=DocumentSchema)(view)))


@blueprint.get("/wallet/statement")
@access(Access.MEMBER)
@blueprint.arguments(OwnJsonStatementQuery, location="query")
@blueprint.response(200, StatementSchema)
def show_own_statement(query: dict[str, Any]) -> Response:
    """My wallet's balance at both ends of a period, and each movement in it."""
    return _json_answer(own_wallet(caller().user_id, chosen_currency(query)), query)


@blueprint.get("/wallet/statement.csv")
@access(Access.MEMBER)
@blueprint.arguments(OwnStatementQuery, location="query")
@_csv
def show_own_statement_csv(query: dict[str, Any]) -> Response:
    """My wallet's statement of a period as CSV."""
    return _csv_answer(own_wallet(caller().user_id, chosen_currency(query)), query)


@blueprint.get("/wallet/statement.pdf")
@access(Access.MEMBER)
@blueprint.arguments(OwnStatementQuery, location="query")
@_pdf
@_later
@refuses(StatementTooLong, TooManyDocuments)
def show_own_statement_pdf(query: dict[str, Any]) -> Response:
    """My wallet's statement of a period as PDF. A long one is made in the background: 202 names its document."""
    return _pdf_answer(own_wallet(caller().user_id, chosen_currency(query)), query)


@blueprint.get("/admin/wallets/<uuid:wallet_id>/statement")
@access(Access.READER)
@blueprint.arguments(JsonStatementQuery, location="query")
@blueprint.response(200, StatementSchema)
@refuses(WalletNotFound)
def show_statement(query: dict[str, Any], wallet_id: UUID) -> Response:
    """A wallet's balance at both ends of a period, and each movement in it."""
    return _json_answer(get_wallet(wallet_id), query)


@blueprint.get("/admin/wallets/<uuid:wallet_id>/statement.csv")
@access(Access.READER)
@blueprint.arguments(StatementQuery, location="query")
@_csv
@refuses(WalletNotFound)
def show_statement_csv(query: dict[str, Any], wallet_id: UUID) -> Response:
    """A wallet's statement of a period as CSV."""
    return _csv_answer(get_wallet(wallet_id), query)


@blueprint.get("/admin/wallets/<uuid:wallet_id>/statement.pdf")
@access(Access.READER)
@blueprint.arguments(StatementQuery, location="query")
@_pdf
@_later
@refuses(WalletNotFound, StatementTooLong, TooManyDocuments)
def show_statement_pdf(query: dict[str, Any], wallet_id: UUID) -> Response:
    """A wallet's statement of a period as PDF. A long one is made in the background: 202 names its document."""
    return _pdf_answer(get_wallet(wallet_id), query)


@blueprint.get("/admin/transactions")
@access(Access.READER)
@blueprint.arguments(TenantTransactionListQuery, location="query")
@blueprint.response(200, StaffTransactionPageSchema)
def list_transactions(query: dict[str, Any]) -> Page[Owned]:
    """The transactions of all wallets, newest first. A page may be short: only `nextCursor` tells whether the list
    ends.
    """
    filters = transaction_filters(query)
    return page_of(query, lambda page: history.with_people(history.list_tenant_transactions(page, filters)))


@blueprint.get("/admin/transactions.csv")
@access(Access.READER)
@blueprint.arguments(TenantTransactionFilters, location="query")
@_csv
def show_transactions_csv(query: dict[str, Any]) -> Response:
    """The transactions of all wallets, oldest first, as CSV."""
    stream = service.stream_transactions(csv.transaction_pieces, transaction_filters(query))
    return streamed(stream, csv.CONTENT_TYPE, "transactions.csv")


def _json_answer(wallet: Wallet, query: dict[str, Any]) -> Response:
    start, end = query["start"], query["end"]
    stream = service.stream_statement(wallet, start, end, json.statement_pieces, with_proof=query["proof"])
    return streamed(stream, json.MEDIA_TYPE)


def _csv_answer(wallet: Wallet, query: dict[str, Any]) -> Response:
    stream = service.stream_statement(wallet, query["start"], query["end"], csv.statement_pieces)
    return streamed(stream, csv.CONTENT_TYPE, "statement.csv")


def _pdf_answer(wallet: Wallet, query: dict[str, Any]) -> Response:
    """The PDF if it is short or already made, or else 202 and its job."""
    statement, lines = service.read_short_statement(wallet, query["start"], query["end"], limit=pdf.DIRECT_MOVEMENTS)
    if lines is not None:
        return pdf_answer(pdf.statement_document(current_tenant(), statement, lines))
    # A job is a row, and nothing writes into an archived tenant.
    service.check_length(statement, pdf.MAX_MOVEMENTS if current_tenant().is_active else pdf.DIRECT_MOVEMENTS)
    document = request_document(statement, caller().id)
    return pdf_answer(get_content(document.id)) if document.status == "done" else accepted(document)
