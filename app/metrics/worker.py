"""The thread of a serving process that moves what was noted into the metrics."""

import atexit
from threading import Event
from typing import Final

from flask import Flask

from app.metrics.observations import OBSERVATIONS, move_observations
from app.metrics.pool import PoolSampler
from tenant_schemas.flask import EXTENSION
from tenant_schemas.worker_loop import start_worker

SECONDS: Final = 1.0


def start_metrics_worker(app: Flask, seconds: float = SECONDS) -> Event:
    """Move the notes into the metrics and sample the connections every `seconds` in a daemon thread, until the returned
    event is set; move the last notes when the process ends. Without metrics it starts nothing. Call this after the
    process was forked.
    """
    sampler = PoolSampler(app.extensions[EXTENSION])

    def move() -> None:
        sampler.sample()
        move_observations()

    if OBSERVATIONS.are_on:
        atexit.register(move_observations)
    return start_worker("metrics", seconds if OBSERVATIONS.are_on else 0, move)
