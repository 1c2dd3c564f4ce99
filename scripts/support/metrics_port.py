"""The option --metrics-port of processes that run until they are stopped and are no web server."""

from typing import Final

import rich_click as click

from app.metrics.endpoint import serve_metrics
from scripts.support.console import BAD_ARGUMENTS, exit_with

metrics_port_option: Final = click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="Port of this machine on which /metrics is served. Default: no metrics.",
)


def serve_metrics_or_exit(port: int | None) -> None:
    """Serve the metrics of this process on the port, if one is given. Exits 2 if it is in use."""
    if port is None:
        return
    try:
        serve_metrics(port)
    except OSError as error:
        exit_with(f"Can't serve metrics on port {port}: {error.strerror}. Choose another one.", BAD_ARGUMENTS)
