"""Writes the counts of refusals whose hour is over into the audit log while the service runs.

A count stays in its table until then, and the next refusal in the tenant writes it too. It works on tenants with an
idle connection in this process and opens none.
"""

from threading import Event
from typing import Final

from flask import Flask

from app.audit.service import end_refusal_windows
from app.db import db
from app.idle_sweep import start_sweeps, sweep_idle_tenants

SECONDS: Final = 600.0


def start_refusal_worker(app: Flask, seconds: float = SECONDS) -> Event:
    """Run `sweep` every `seconds` until the returned event is set. Call this after the process was forked."""
    return start_sweeps(app, "refusal-counts", seconds, sweep)


def sweep() -> None:
    """One round over the tenants. A failure of one tenant is logged and stops no other; the next round tries again."""
    sweep_idle_tenants(_end, "refusal_counts_failed")


def _end() -> None:
    end_refusal_windows()
    db.session.commit()
