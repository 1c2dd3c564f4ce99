"""Notes while the service runs that holds are over, so that the tables say what the answers say.

No answer depends on it: a hold whose time is over blocks no funds from that moment on, noted or not. It works for
the tenants that have an idle connection in this process, opens none, and leaves wallets alone that somebody is using;
tenants that nobody asks for are swept by `flask wallets expire-holds`. Several processes may do the same at once.
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


def start_timer(app: Flask, seconds: float) -> Event:
    """Sweep every `seconds`, or never if it is 0, until the returned event is set. Call this after the process was
    forked.
    """
    return start_worker("hold-expiry", seconds, partial(_sweep_in_context, app))


def _sweep_in_context(app: Flask) -> None:
    with app.app_context():
        sweep()


def sweep() -> None:
    """One round. What fails for one tenant is logged and stops no other; the next round tries again."""
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
