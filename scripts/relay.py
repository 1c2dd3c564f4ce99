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
from functools import partial
from threading import Event
from uuid import uuid4

import rich_click as click

from app import create_app
from app.brokers.connect import publisher_for
from app.config import Settings
from app.relay.broker_sink import BrokerSink
from app.relay.relay import Relay
from app.relay.sweep import Sweep
from scripts.support.console import settings_or_exit


@click.command(help=__doc__)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Tenants at once whose events are numbered and published.",
)
@click.option(
    "--senders",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Tenants at once whose webhooks are called.",
)
def main(threads: int, senders: int) -> None:
    settings = settings_or_exit()
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sweep, broker = Sweep(settings.relay_database_url), _broker(settings)
    try:
        Relay(create_app(settings), sweep, broker, threads=threads, senders=senders).run(stop)
    finally:
        sweep.close()
        if broker is not None:
            broker.close()


def _broker(settings: Settings) -> BrokerSink | None:
    return BrokerSink(partial(publisher_for, settings.broker_url), uuid4()) if settings.broker_url else None


if __name__ == "__main__":
    main()
