"""Deletes expired documents while the service runs, so that they take no room.

No answer depends on it: an expired document is never shown. It works on tenants with an idle connection in this process
and opens none. `flask wallets expire-documents` covers all other tenants.
"""

from threading import Event
from typing import Final

from flask import Flask

from app.idle_sweep import start_sweeps, sweep_idle_tenants
from app.statements.documents.service import expire_documents

SECONDS: Final = 600.0


def start_document_expiry_worker(app: Flask, seconds: float = SECONDS) -> Event:
    """Run `sweep` every `seconds` until the returned event is set. Call this after the process was forked."""
    return start_sweeps(app, "document-expiry", seconds, sweep)


def sweep() -> None:
    """One round over the tenants. A failure of one tenant is logged and stops no other; the next round tries again."""
    sweep_idle_tenants(_expire, "document_expiry_failed")


def _expire() -> None:
    expire_documents()
