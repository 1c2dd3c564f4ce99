"""The kind of command that all scripts are: it ends on SIGTERM as on Ctrl-C, and an error is one line and an exit code,
never a stack trace.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import rich_click as click

from scripts.support.console import exit_on_error


class Script(click.RichCommand):
    """A script's command. A script that drains on SIGTERM installs a handler of its own."""

    def invoke(self, ctx: click.Context) -> Any:
        with ending_on_sigterm(), exit_on_error():
            return super().invoke(ctx)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Until the block ends, SIGTERM interrupts as Ctrl-C does: psycopg cancels the statement that it waits for, the db
    transaction is rolled back, and the session ends. A second SIGTERM kills the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
