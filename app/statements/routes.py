"""Statements of a wallet, and the transactions of all the tenant's wallets, as a list and as a file."""

from datetime import datetime
from typing import Any
from uuid import UUID

from flask import Response

from app.api.blueprint import Blueprint
from app.api.pagination import Page, paginate
from app.api.refusals import View, refuses
from app.auth.access import Access, access, caller
from app.ledger.models import WalletTransaction
from app.ledger.routes import transaction_filters
from app.ledger.schemas import TransactionListQuery, TransactionPageSchema
from app.statements import csv, json, pdf, service
from app.statements.answers import answers_with_file, pdf_answer, streamed
from app.statements.documents.answers import accepted, gives_location, gives_retry_after
from app.statements.documents.errors import TooManyDocuments
from app.statements.documents.schemas import DocumentSchema
from app.statements.documents.service import get_content, request_document
from app.statements.errors import StatementTooLong
from app.statements.schemas import ExportQuery, OwnStatementQuery, StatementQuery, StatementSchema
from app.users.errors import MemberNotFound
from app.wallets.currencies import chosen_currency
from app.wallets.errors import WalletNotFound
from app.wallets.models import Wallet
from app.wallets.service import get_wallet, own_wallet
from tenant_schemas.context import current_tenant

blueprint = Blueprint("statements", __name__, url_prefix="/api", description="Statements and exports.")


_csv, _pdf = answers_with_file(blueprint, csv.MEDIA_TYPE, type="string"), answers_with_file(blueprint, pdf.MEDIA_TYPE)


def _later(view: View) -> View:
    """Describe in OpenAPI that a view may answer with a job."""
    return gives_location(gives_retry_after(blueprint.alt_response(202, schema=DocumentSchema)(view)))


@blueprint.get("/wallet/statement")
@access(Access.MEMBER)
@blueprint.arguments(OwnStatementQuery, location="query")
@blueprint.response(200, StatementSchema)
@_csv
@_pdf
@_later
@refuses(StatementTooLong, TooManyDocuments, MemberNotFound)
def show_own_statement(query: dict[str, Any]) -> Response:
    """My wallet's balance at both ends of a period, and each movement in it."""
    return _statement(own_wallet(caller().user_id, chosen_currency(query)), query)


@blueprint.get("/admin/wallets/<uuid:wallet_id>/statement")
@access(Access.READER)
@blueprint.arguments(StatementQuery, location="query")
@blueprint.response(200, StatementSchema)
@_csv
@_pdf
@_later
@refuses(WalletNotFound, StatementTooLong, TooManyDocuments)
def show_statement(query: dict[str, Any], wallet_id: UUID) -> Response:
    """A wallet's balance at both ends of a period, and each movement in it."""
    return _statement(get_wallet(wallet_id), query)


@blueprint.get("/admin/transactions")
@access(Access.READER)
@blueprint.arguments(TransactionListQuery, location="query")
@blueprint.response(200, TransactionPageSchema)
def list_transactions(query: dict[str, Any]) -> Page[WalletTransaction]:
    """The transactions of all wallets, newest first."""
    filters = transaction_filters(query)
    return paginate(
        query,
        lambda after, limit: service.list_tenant_transactions(after=after, limit=limit, **filters),
        lambda item: [item.created_at, item.wallet_id, item.seq],
    )


@blueprint.get("/admin/transactions/export")
@access(Access.READER)
@blueprint.arguments(ExportQuery, location="query")
@_csv
def export_transactions(query: dict[str, Any]) -> Response:
    """The transactions of all wallets, oldest first, as one file."""
    stream = service.stream_transactions(csv.transaction_pieces, **transaction_filters(query))
    return streamed(stream, csv.CONTENT_TYPE, "transactions.csv")


def _statement(wallet: Wallet, query: dict[str, Any]) -> Response:
    start, end = query["start"], query["end"]
    if query["format"] == "json":
        return streamed(service.stream_statement(wallet, start, end, json.statement_pieces), json.MEDIA_TYPE)
    if query["format"] == "csv":
        stream = service.stream_statement(wallet, start, end, csv.statement_pieces)
        return streamed(stream, csv.CONTENT_TYPE, "statement.csv")
    return _document(wallet, start, end)


def _document(wallet: Wallet, start: datetime, end: datetime) -> Response:
    """The PDF if it is short or already made, or else 202 and its job."""
    statement, lines = service.read_short_statement(wallet, start, end, limit=pdf.DIRECT_MOVEMENTS)
    if lines is not None:
        return pdf_answer(pdf.statement_document(current_tenant(), statement, lines))
    # A job is a row, and nothing writes into an archived tenant.
    service.check_length(statement, pdf.MAX_MOVEMENTS if current_tenant().is_active else pdf.DIRECT_MOVEMENTS)
    document = request_document(statement, caller().id)
    return pdf_answer(get_content(document.id)) if document.status == "done" else accepted(document)
