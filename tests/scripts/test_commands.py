"""`scripts.commands` as a process: killed at any moment, it pays every command once."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask

from app.config import ROOT
from scripts.commands import main
from scripts.support.console import BAD_ARGUMENTS
from tenant_schemas.testing.plugin import Database
from tests.conftest import SECRET_KEY, SIGNING_KEYS
from tests.factories.brokers import RabbitBroker, needs_rabbitmq
from tests.factories.command_queue import is_consumed, publish, until, wait_for_queue
from tests.factories.commands import command, make_sender
from tests.factories.people import People


def environment(database: Database, broker_url: str) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": database.app_url,
        "TENANT_SECRET": database.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
        "BROKER_URL": broker_url,
    }


@contextmanager
def process(database: Database, broker_url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command_line = [sys.executable, "-m", "scripts.commands", "--tenant", "eur"]
    with log.open("ab") as output:
        running = subprocess.Popen(
            command_line, cwd=ROOT, env=environment(database, broker_url), stdout=output, stderr=output
        )
        try:
            yield running
        finally:
            running.kill()
            running.wait()


@needs_rabbitmq
def test_a_killed_process_pays_every_command_once(
    app: Flask, people: People, database: Database, rabbit_broker: RabbitBroker, tmp_path: Path
) -> None:
    sender, log = make_sender(app), tmp_path / "log"
    wallet_id = people.wallet(people.make(eur="member"), "eur", balance_minor=100_000)
    bodies = [command("payment", walletId=wallet_id, amount="1.00") for _ in range(150)]
    with database.as_superuser() as connection:

        def paid() -> int:
            query = "SELECT count(*) FROM eur_schema.wallet_transactions WHERE wallet_id = %s AND seq > 1"
            return int(connection.execute(query, (wallet_id,)).fetchall()[0][0])

        with process(database, rabbit_broker.url, log) as first:
            wait_for_queue(rabbit_broker.url, sender.tenant_id)
            publish(rabbit_broker.url, sender.tenant_id, sender.user_id, [*bodies, *bodies])
            until(lambda: paid() > 0)
            first.kill()
            first.wait()
        assert 0 < paid() < len(bodies)
        with process(database, rabbit_broker.url, log) as second:
            until(lambda: is_consumed(rabbit_broker.url, sender.tenant_id))
            second.send_signal(signal.SIGTERM)
            assert second.wait(10) == 0, log.read_text()
        assert paid() == len(bodies)


@pytest.mark.parametrize("broker_url", ["", "redis://127.0.0.1:6379/0"])
def test_it_needs_rabbitmq(database: Database, monkeypatch: pytest.MonkeyPatch, broker_url: str) -> None:
    for name, value in environment(database, broker_url).items():
        monkeypatch.setenv(name, value)
    ran = CliRunner().invoke(main)
    assert ran.exit_code == BAD_ARGUMENTS
    assert "BROKER_URL" in ran.stderr


def test_a_port_for_metrics_that_is_in_use_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(database, "amqp://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = CliRunner().invoke(main, ["--metrics-port", port])
    assert ran.exit_code == BAD_ARGUMENTS
    assert f"port {port}" in ran.stderr
