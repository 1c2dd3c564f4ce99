"""The reports of a job while its document is made, in a thread: on a busy machine a program of low priority may need
minutes for a step that it can't interrupt, and its lease must not end meanwhile.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from app.statements.documents import jobs
from app.statements.documents.models import Job
from app.statements.models import Line
from tenant_schemas.errors import TenancyError
from tenant_schemas.search_path import BindingEngine

REPORT_SECONDS: Final = 1.0


class Progress:
    """How many of how many movements are laid out, and whether another program has the job."""

    def __init__(self) -> None:
        self.movements = 0
        self.rendered = 0
        self.is_lost = False

    def counted(self, lines: Sequence[Line]) -> Iterator[Line]:
        """The lines, counted as they are taken. Raises LeaseLost as soon as another program has the job."""
        self.movements = len(lines)
        for self.rendered, line in enumerate(lines):
            if self.is_lost:
                raise jobs.LeaseLost
            yield line


@contextmanager
def reported(engine: BindingEngine, job: Job) -> Iterator[Progress]:
    """Report the job's progress every second, until the block ends."""
    progress, stop = Progress(), Event()
    reporter = Thread(target=_report, args=(engine, job, progress, stop), name="progress", daemon=True)
    reporter.start()
    try:
        yield progress
    finally:
        stop.set()
        reporter.join()


def _report(engine: BindingEngine, job: Job, progress: Progress, stop: Event) -> None:
    while not stop.wait(REPORT_SECONDS):
        try:
            jobs.report(engine, job, movements=progress.movements or None, rendered=progress.rendered)
        except jobs.LeaseLost:
            progress.is_lost = True
            return
        except (psycopg.Error, SQLAlchemyError, TenancyError):
            continue  # The lease is longer than several reports.
