"""The thread that moves notes into the metrics, and the process that has no metrics and no such thread."""

import threading
import time

import pytest
from flask import Flask

from app.metrics.definitions import BROKER_RETURNS, REGISTRY
from app.metrics.observations import OBSERVATIONS, count, move_observations
from app.metrics.worker import start_metrics_worker


def test_notes_are_moved_again_and_again(app: Flask) -> None:
    before = REGISTRY.get_sample_value("wallet_broker_returns_total") or 0.0
    stop = start_metrics_worker(app, 0.01)
    try:
        for number in (1, 2):
            count(BROKER_RETURNS)
            deadline = time.monotonic() + 5
            while REGISTRY.get_sample_value("wallet_broker_returns_total") != before + number:
                assert time.monotonic() < deadline
                time.sleep(0.01)
    finally:
        stop.set()


def test_a_process_without_metrics_notes_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OBSERVATIONS, "are_on", False)
    move_observations()
    threads = threading.active_count()
    start_metrics_worker(app, 0.01)
    count(BROKER_RETURNS)
    assert threading.active_count() == threads
    assert not OBSERVATIONS.noted
