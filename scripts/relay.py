"""Number the events of all tenants, publish them to the broker, and deliver them to webhooks. Runs until it is stopped.

Any number of relays may run at once, on any machines. `make run` starts one. Without BROKER_URL nothing is published.
SIGTERM and Ctrl-C let running work end, for at most 30 s. A relay that is killed loses nothing: another one, or the
next, goes on where it was and may send some events again.

Examples:
    python -m scripts.relay
    python -m scripts.relay --threads 8 --senders 32

Exit codes: 0 after SIGTERM or Ctrl-C; 2 bad arguments or settings.
"""

import signal
from datetime import timedelta
from functools import partial
from threading import Event
from uuid import uuid4

import rich_click as click

from app import create_app
from app.brokers.connect import publisher_for
from app.brokers.publisher import BrokerMisconfigured
from app.config import Settings
from app.relay.broker_sink import BrokerSink
from app.relay.relay import Relay
from app.relay.sweep import Sweep
from app.relay.upkeep import Upkeep
from scripts.support.console import BAD_ARGUMENTS, exit_with, settings_or_exit
from scripts.support.metrics_port import metrics_port_option, serve_metrics_or_exit
from scripts.support.script import Script


@click.command(cls=Script, help=__doc__)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Tenants at once whose events are numbered, as many whose events are published, and whose webhooks are found.",
)
@click.option(
    "--senders",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Webhooks at once that are called: half of them of one tenant at most, and half of them slow ones.",
)
@metrics_port_option
def main(threads: int, senders: int, metrics_port: int | None) -> None:
    settings = settings_or_exit()
    if not settings.relay_database_url:
        exit_with("RELAY_DATABASE_URL is not set: set it to the URL of the login wallet_relay.", BAD_ARGUMENTS)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    serve_metrics_or_exit(metrics_port)
    sweep, broker = Sweep(settings.relay_database_url), _broker(settings)
    upkeep = Upkeep(timedelta(days=settings.event_retention_days), has_broker=broker is not None)
    try:
        Relay(create_app(settings), sweep, broker, upkeep, threads=threads, senders=senders).run(stop)
    finally:
        sweep.close()
        if broker is not None:
            broker.close()


def _broker(settings: Settings) -> BrokerSink | None:
    """Exits 2 if the broker's library is not installed."""
    if not settings.broker_url:
        return None
    try:
        publisher_for(settings.broker_url).close()
    except BrokerMisconfigured as error:
        exit_with(str(error), BAD_ARGUMENTS)
    return BrokerSink(partial(publisher_for, settings.broker_url), uuid4())


if __name__ == "__main__":
    main()
