"""Start the wallet as its own service behind a gateway, beside a stand-in for your main application, and print what to
try. `make demo` runs this.

Starts an embedded PostgreSQL, RabbitMQ, the API, the streams, the relay, the commands, the stand-in of deploy/standin
and nginx as the gateway, each as a process, on ports of 127.0.0.1. RabbitMQ and nginx are those of Debian's packages.
Everything lies in a temporary folder. Ctrl-C ends all processes and removes the folder.

Example:
    python -m scripts.demo --port 8080

Exit codes: 0 after Ctrl-C; 1 a process did not start, or ended by itself; 2 bad arguments, the port is in use, or a
package is missing.
"""

import signal
import sys
import tempfile
from pathlib import Path
from threading import Event

import rich_click as click

from scripts.seed_demo import demo_password
from scripts.serve import HOST, STOP_SIGNALS, refuse_taken_port
from scripts.support.console import BAD_ARGUMENTS, FAILED, exit_with, warn
from scripts.support.demo.installation import installation, missing_packages
from scripts.support.demo.lines_to_try import lines_to_try
from scripts.support.demo.processes import Failed, Stopped
from scripts.support.script import Script

WATCH_SECONDS = 0.2


@click.command(cls=Script, help=__doc__)
@click.option(
    "--port",
    envvar="PORT",
    show_envvar=True,
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Port of the gateway.",
)
def main(port: int) -> None:
    missing = missing_packages()
    if missing:
        exit_with(f"Not installed: {', '.join(missing)}. On Debian: apt-get install {' '.join(missing)}", BAD_ARGUMENTS)
    refuse_taken_port(HOST, port, "PORT")
    stop = Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="wallet-demo-", ignore_cleanup_errors=True) as folder:
        sys.exit(_run(Path(folder), port, stop))


def _run(folder: Path, port: int, stop: Event) -> int:
    """Returns the exit code."""
    made = installation(folder, port, demo_password(), stop)
    print("Starting; this takes about half a minute.", flush=True)
    try:
        made.start()
        print(lines_to_try(made.url, made.password), flush=True)
        while True:
            made.processes.check()
            stop.wait(WATCH_SECONDS)
    except Stopped:
        return 0
    except Failed as error:
        warn(str(error))
        return FAILED
    finally:
        made.processes.end()


if __name__ == "__main__":
    main()
