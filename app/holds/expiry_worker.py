"""Marks expired holds while the service runs, so that the tables agree with the answers.

No answer depends on it: an expired hold blocks no funds, marked or not. It works on tenants with an idle connection in
this process, opens no connection, and skips locked wallets. `flask wallets expire-holds` covers all other tenants.
Several processes may work at once.
"""

from threading import Event

import structlog
from flask import Flask

from app.holds.service import expire_holds
from app.idle_sweep import start_sweeps, sweep_idle_tenants
from tenant_schemas.context import current_tenant

log = structlog.get_logger(__name__)


def start_expiry_worker(app: Flask, seconds: float) -> Event:
    """Run `sweep` every `seconds`, or never if it is 0, until the returned event is set. Call this after the process
    was forked.
    """
    return start_sweeps(app, "hold-expiry", seconds, sweep)


def sweep() -> None:
    """One round over the tenants. A failure of one tenant is logged and stops no other; the next round tries again."""
    sweep_idle_tenants(_expire, "hold_expiry_failed")


def _expire() -> None:
    count = expire_holds()
    if count:
        log.info("holds_expired", tenant=current_tenant().slug, wallets=count)
