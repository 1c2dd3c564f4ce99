"""Notes while the service runs that holds are over, so that the tables say what the answers say.

No answer depends on it: a hold whose time is over blocks no funds from that moment on, noted or not. It works for
the tenants that have an idle connection in this process, opens none, and leaves wallets alone that somebody is using;
tenants that nobody asks for are swept by `flask wallets expire-holds`. Several processes may do the same at once.
"""

from threading import Event, Thread

import structlog
from flask import Flask

from app.db import db
from app.holds.service import expire_holds
from tenant_schemas.flask import connections, tenant_context

log = structlog.get_logger(__name__)


def start_timer(app: Flask, seconds: float) -> Event:
    """Sweep every so many seconds, or never if it is 0, in a thread that ends with the process or when the event that
    is returned is set. To be called in the process that serves, after it was forked.
    """
    stop = Event()
    if seconds:
        Thread(target=_sweep_every, args=(app, seconds, stop), name="hold-expiry", daemon=True).start()
    return stop


def _sweep_every(app: Flask, seconds: float, stop: Event) -> None:
    while not stop.wait(seconds):
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
