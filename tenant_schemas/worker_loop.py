"""Background work of a serving process: a daemon thread that repeats one function."""

import logging
from collections.abc import Callable
from threading import Event, Thread

log = logging.getLogger(__name__)


def start_worker(name: str, seconds: float, work: Callable[[], None]) -> Event:
    """Run `work` every `seconds` in a daemon thread of this name; start no thread if `seconds` is 0.

    An exception in `work` is logged and does not end the thread. Set the returned event to stop it. Call this after
    the process was forked: threads do not survive a fork.
    """
    stop = Event()
    if seconds:
        Thread(target=_repeat, args=(name, seconds, work, stop), name=name, daemon=True).start()
    return stop


def _repeat(name: str, seconds: float, work: Callable[[], None], stop: Event) -> None:
    while not stop.wait(seconds):
        try:
            work()
        except Exception:  # The cause may be gone at the next run, for instance a lost connection.
            log.exception("Worker %s failed. It runs again in %s seconds.", name, seconds)
