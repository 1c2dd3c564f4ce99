"""How a process stops: what watches whether it has been told to, and what SIGTERM does in a command."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

# Answers without an end watch it, so that a restart need not wait.
is_stopping: Final = threading.Event()


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
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
