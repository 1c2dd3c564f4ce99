"""Upkeep of tenants while the service runs: work in turn on those with an idle connection in this process. It opens no
connection.
"""

from collections.abc import Callable
from functools import partial
from threading import Event

import structlog
from flask import Flask

from app.db import db
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.worker_loop import start_worker

log = structlog.get_logger(__name__)


def start_sweeps(app: Flask, name: str, seconds: float, sweep: Callable[[], None]) -> Event:
    """Run `sweep` in the application's context every `seconds`, or never if it is 0, until the returned event is set.
    Call this after the process was forked.
    """
    return start_worker(name, seconds, partial(_in_context, app, sweep))


def _in_context(app: Flask, sweep: Callable[[], None]) -> None:
    with app.app_context():
        sweep()


def sweep_idle_tenants(work: Callable[[], None], failure_event: str) -> None:
    """Do `work` in each active tenant. A failure of one tenant is logged and stops no other; the next round tries
    again.
    """
    for tenant in connections().tenants_with_idle_connections():
        if not tenant.is_active:
            continue
        try:
            with tenant_context(tenant):
                work()
        except Exception:
            db.session.rollback()
            log.exception(failure_event, tenant=tenant.slug)
        finally:
            db.session.remove()
