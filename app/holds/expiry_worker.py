"""Marks expired holds while the service runs, so that the tables agree with the answers.

No answer depends on it: an expired hold blocks no funds, marked or not. It works on tenants with an idle connection in
this process, opens no connection, and skips locked wallets. `flask wallets expire-holds` covers all other tenants.
Several processes may work at once.
"""

from functools import partial
from threading import Event

import structlog
from flask import Flask

from app.db import db
from app.holds.service import expire_holds
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.worker_loop import start_worker

log = structlog.get_logger(__name__)


def start_expiry_worker(app: Flask, seconds: float) -> Event:
    """Run `sweep` every `seconds`, or never if it is 0, until the returned event is set. Call this after the process
    was forked.
    """
    return start_worker("hold-expiry", seconds, partial(_sweep_in_context, app))


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
                count = expire_holds()
        except Exception:
            db.session.rollback()
            log.exception("hold_expiry_failed", tenant=tenant.slug)
        else:
            if count:
                log.info("holds_expired", tenant=tenant.slug, wallets=count)
        finally:
            db.session.remove()
