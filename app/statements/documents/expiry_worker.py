"""Deletes expired documents while the service runs, so that they take no room.

No answer depends on it: an expired document is never shown. It works on tenants with an idle connection in this process
and opens none. `flask wallets expire-documents` covers all other tenants.
"""

from functools import partial
from threading import Event
from typing import Final

import structlog
from flask import Flask

from app.statements.documents.service import expire_documents
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.worker_loop import start_worker

log = structlog.get_logger(__name__)

SECONDS: Final = 600.0


def start_document_expiry_worker(app: Flask, seconds: float = SECONDS) -> Event:
    """Run `sweep` every `seconds` until the returned event is set. Call this after the process was forked."""
    return start_worker("document-expiry", seconds, partial(_sweep_in_context, app))


def _sweep_in_context(app: Flask) -> None:
    with app.app_context():
        sweep()


def sweep() -> None:
    """One round over the tenants. A failure of one tenant is logged and stops no other; the next round tries again."""
    for tenant in connections().tenants_with_idle_connections():
        if not tenant.is_active:
            continue
        try:
            with tenant_context(tenant):
                expire_documents()
        except Exception:
            log.exception("document_expiry_failed", tenant=tenant.slug)
