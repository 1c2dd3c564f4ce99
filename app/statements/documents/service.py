"""Requests, looks up and expires documents of the bound tenant.

A request's job is its row. `worker.py` starts the program that makes it, `renderer.py` is that program.
"""

from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from app.db import db
from app.sql_refusals import named_refusals
from app.statements.documents.errors import DocumentNotFound, DocumentNotReady
from app.statements.documents.models import Document
from app.statements.documents.worker import wake_worker
from app.statements.models import Statement
from app.wallets.models import Wallet
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import connections

_REQUEST: Final = "SELECT document_request_v1(%s, %s, %s, %s, %s)"
_EXPIRE: Final = "SELECT documents_expire_v1()"


def request_document(statement: Statement, requested_by: UUID) -> Document:
    """The caller's document of this statement: the one that is there or being made, or else a new job. It is committed.
    Raises TooManyDocuments.
    """
    told = (statement.wallet_id, requested_by, statement.start, statement.end, statement.count)
    with named_refusals():
        ((document_id,),) = connections().engine(current_tenant()).one_statement(_REQUEST, told, retry=True)
    return get_document(document_id)


def get_document(document_id: UUID, *, of_member: UUID | None = None) -> Document:
    """The document with this id; with `of_member` only if that member requested it, of their own wallet. Raises
    DocumentNotFound.

    If no program works at it, the worker of this process does so next: its request may have reached a process that was
    stopped since.
    """
    found = _find(document_id, of_member)
    if found.is_unfinished and not found.has_lease:
        wake_worker(current_tenant())
    return found


def get_content(document_id: UUID, *, of_member: UUID | None = None) -> bytes:
    """The bytes of a finished document. Raises DocumentNotFound, DocumentNotReady."""
    found = _find(document_id, of_member, sa.orm.undefer(Document.content))
    if found.content is None:
        raise DocumentNotReady(f"The document is {found.status}.", {"state": found.status})
    return found.content


def expire_documents() -> int:
    """Delete the bound tenant's expired documents. Returns their number. No answer depends on it."""
    ((count,),) = connections().engine(current_tenant()).one_statement(_EXPIRE, (), retry=True)
    return int(count)


def _find(document_id: UUID, of_member: UUID | None, *options: Any) -> Document:
    query = sa.select(Document).where(Document.id == document_id, Document.expires_at > sa.func.clock_timestamp())
    if of_member is not None:
        query = query.join(Wallet, Wallet.id == Document.wallet_id)
        query = query.where(Document.requested_by == of_member, Wallet.user_id == of_member)
    found = db.session.scalar(query.options(*options))
    if found is None:
        raise DocumentNotFound(DocumentNotFound.text)
    return found
