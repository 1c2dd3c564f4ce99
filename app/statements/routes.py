"""Statements of a wallet, and the transactions of all the tenant's wallets, as a list and as a file."""

from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from flask import Response, request

from app.api.blueprint import Blueprint
from app.api.headers import View
from app.api.pagination import Page, paginate
from app.auth.access import Access, access, caller
from app.ledger.models import WalletTransaction
from app.ledger.routes import transaction_filters
from app.ledger.schemas import TransactionListQuery, TransactionPageSchema
from app.statements import csv, json, pdf, service
from app.statements.schemas import ExportQuery, OwnStatementQuery, StatementQuery, StatementSchema
from app.statements.streams import STALLED_CLIENT_SECONDS, BoundStream
from app.wallets.currencies import chosen_currency
from app.wallets.models import Wallet
from app.wallets.service import get_wallet, own_wallet
from tenant_schemas.context import current_tenant

blueprint = Blueprint("statements", __name__, url_prefix="/api", description="Statements and exports.")


def _file(media_type: str, **about: str) -> Callable[[View], View]:
    """Describe in OpenAPI that a view may answer with a file. A file of bytes has no type there."""
    schema = {"contentMediaType": media_type, **about}
    mark = cast(Any, blueprint).alt_response(200, schema=schema, content_type=media_type)
    return cast(Callable[[View], View], mark)


_csv, _pdf = _file(csv.MEDIA_TYPE, type="string"), _file(pdf.MEDIA_TYPE)


@blueprint.get("/wallet/statement")
@access(Access.MEMBER)
@blueprint.arguments(OwnStatementQuery, location="query")
@blueprint.response(200, StatementSchema)
@_csv
@_pdf
def show_own_statement(query: dict[str, Any]) -> Response:
    """My wallet's balance at both ends of a period, and each movement in it."""
    return _statement(own_wallet(caller().user_id, chosen_currency(query)), query)


@blueprint.get("/admin/wallets/<uuid:wallet_id>/statement")
@access(Access.READER)
@blueprint.arguments(StatementQuery, location="query")
@blueprint.response(200, StatementSchema)
@_csv
@_pdf
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
    return _streamed(stream, csv.CONTENT_TYPE, "transactions.csv")


def _statement(wallet: Wallet, query: dict[str, Any]) -> Response:
    start, end = query["start"], query["end"]
    if query["format"] == "json":
        return _streamed(service.stream_statement(wallet, start, end, json.statement_pieces), json.MEDIA_TYPE)
    if query["format"] == "csv":
        stream = service.stream_statement(wallet, start, end, csv.statement_pieces)
        return _streamed(stream, csv.CONTENT_TYPE, "statement.csv")
    statement, lines = service.read_statement(wallet, start, end, limit=pdf.MAX_MOVEMENTS)
    return _answer(pdf.statement_document(current_tenant(), statement, lines), pdf.MEDIA_TYPE, "statement.pdf")


def _streamed(stream: BoundStream, content_type: str, filename: str | None = None) -> Response:
    """A streamed answer. Without a limit, gunicorn would wait for ever for a client that reads nothing, and that client
    would occupy a thread.
    """
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.settimeout(STALLED_CLIENT_SECONDS)
    return _answer(stream, content_type, filename)


def _answer(body: Any, content_type: str, filename: str | None = None) -> Response:
    """Files are named after their tenant, whose slug needs no quoting."""
    attachment = {"Content-Disposition": f'attachment; filename="{current_tenant().slug}-{filename}"'}
    return Response(body, content_type=content_type, headers=attachment if filename else None)
