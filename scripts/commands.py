"""Run the commands that services send by queue: payments, deposits, refunds, holds. Runs until it is stopped.

It needs RabbitMQ (BROKER_URL). Each tenant with an API key of the role service has a queue. A queue has one active
consumer, over all processes; another one takes over from one that ends. SIGTERM and Ctrl-C let running commands end. A
process that is killed loses nothing: its commands are delivered again, and none has its effect twice.

Examples:
    python -m scripts.commands
    python -m scripts.commands --tenant eur --tenant km
    python -m scripts.commands --metrics-port 9102

Exit codes: 0 after SIGTERM or Ctrl-C; 2 bad arguments or settings.
"""

import asyncio
import signal
from functools import partial

import rich_click as click

from app import create_app
from app.auth.key_uses import start_key_use_worker
from app.config import Settings
from scripts.support.console import BAD_ARGUMENTS, exit_with, settings_or_exit
from scripts.support.metrics_port import metrics_port_option, serve_metrics_or_exit
from scripts.support.script import Script
from tenant_schemas.flask import EXTENSION
from tenant_schemas.registry_watcher import start_registry_watcher


@click.command(cls=Script, help=__doc__)
@click.option("--tenant", "slugs", metavar="SLUG", multiple=True, help="Only this tenant's queue; may be repeated.")
@metrics_port_option
def main(slugs: tuple[str, ...], metrics_port: int | None) -> None:
    settings = settings_or_exit()
    if not settings.broker_url.startswith(("amqp://", "amqps://")):
        exit_with("Commands need RabbitMQ: set BROKER_URL to amqp:// or amqps://.", BAD_ARGUMENTS)
    serve_metrics_or_exit(metrics_port)
    asyncio.run(_consume(settings, slugs))


async def _consume(settings: Settings, slugs: tuple[str, ...]) -> None:
    try:
        from app.queue_commands.consumer import consume  # noqa: PLC0415  Its library is an extra.
        from app.queue_commands.tenants import tenants_with_senders  # noqa: PLC0415
    except ModuleNotFoundError:
        exit_with("The library of RabbitMQ is not installed: pip install 'schema-wallet[rabbitmq]'.", BAD_ARGUMENTS)
    app, stop = create_app(settings), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    start_key_use_worker(app)
    start_registry_watcher(app.extensions[EXTENSION], settings.registry_watch_seconds)
    choose = partial(tenants_with_senders, app, slugs)
    await consume(app, settings.broker_url, choose, stop, threads=settings.request_concurrency)


if __name__ == "__main__":
    main()
