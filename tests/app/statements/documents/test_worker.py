"""The worker of a serving process: documents are made in a program of their own, at low priority, one at a time."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import enumerate as running_threads
from time import sleep
from uuid import uuid4

import orjson
import pytest
from flask import Flask

from app import create_app
from app.config import ROOT
from app.metrics.endpoint import FOLDER_VARIABLE
from app.statements.documents import worker
from app.statements.documents.worker import EXTENSION, DocumentWorker, start_document_worker
from tenant_schemas.flask import EXTENSION as CONNECTIONS
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book
from tests.app.statements.documents.conftest import change, job_of, long_book, state, until
from tests.app.statements.documents.test_renderer import fill_again
from tests.conftest import settings_for

PROGRAM = b"app.statements.documents.renderer"
MOVEMENTS = 8_000  # A program needs some seconds for them.


@contextmanager
def working(app: Flask) -> Iterator[DocumentWorker]:
    """The worker's threads run."""
    stop = start_document_worker(app)
    try:
        yield app.extensions[EXTENSION]
    finally:
        stop.set()
        for process_id in programs():
            os.kill(process_id, signal.SIGTERM)
        until(lambda: not programs())
        until(lambda: not any(thread.name.startswith("documents-") for thread in running_threads()))


def programs() -> list[int]:
    """The process ids of this process's programs that make documents."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()
            if is_child and PROGRAM in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, ValueError):
            continue
    return found


def has_ended(book: Book, document_id: str) -> bool:
    return state(book, document_id)["status"] in {"done", "failed"}


def test_a_program_of_low_priority_makes_the_document(
    fresh_book: Book, fresh_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    fill_again(fresh_database, fresh_book, MOVEMENTS)
    with working(fresh_book.app):
        document = job_of(fresh_book)["id"]
        until(programs)
        (process_id,) = programs()
        until(lambda: os.getpriority(os.PRIO_PROCESS, process_id) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 19))
        secret = fresh_database.tenant_secret.encode()
        assert secret not in Path(f"/proc/{process_id}/cmdline").read_bytes()
        until(lambda: has_ended(fresh_book, document))
    assert state(fresh_book, document)["status"] == "done"
    assert list(tmp_path.iterdir()) == [], "it writes no metrics, whose files would stay"


def test_tenants_that_share_a_login_have_documents_too(fresh_database: Database) -> None:
    app = create_app(settings_for(fresh_database, tenant_logins="shared"))
    book = long_book(app)
    with working(app):
        document = job_of(book)["id"]
        until(lambda: has_ended(book, document))
    assert state(book, document)["status"] == "done"
    app.extensions[CONNECTIONS].close()


def test_a_program_whose_parent_has_ended_makes_nothing(fresh_book: Book, fresh_database: Database) -> None:
    own: DocumentWorker = fresh_book.app.extensions[EXTENSION]
    document = job_of(fresh_book)["id"]
    told = orjson.loads(own._task(fresh_database.tenant("eur"))) | {"parent_id": 1}
    command = [sys.executable, "-c", worker._PROGRAM.format(niceness=0)]
    ended = subprocess.run(command, cwd=ROOT, input=orjson.dumps(told), check=False)
    assert ended.returncode == 143
    assert state(fresh_book, document)["status"] == "pending"


def test_a_killed_programs_job_is_made_by_the_next_one(fresh_book: Book, fresh_database: Database) -> None:
    fill_again(fresh_database, fresh_book, MOVEMENTS)
    with working(fresh_book.app):
        document = job_of(fresh_book)["id"]
        until(lambda: state(fresh_book, document)["status"] == "running")
        (process_id,) = programs()
        os.kill(process_id, signal.SIGKILL)
        until(lambda: not programs())
        change(fresh_database, "leased_until = now()", document)
        until(lambda: has_ended(fresh_book, document))
    assert state(fresh_book, document)["status"] == "done"


def test_a_program_that_is_told_to_end_gives_its_job_back(fresh_book: Book, fresh_database: Database) -> None:
    fill_again(fresh_database, fresh_book, MOVEMENTS)
    stop = start_document_worker(fresh_book.app)
    document = job_of(fresh_book)["id"]
    until(lambda: state(fresh_book, document)["status"] == "running")
    stop.set()
    os.kill(programs()[0], signal.SIGTERM)
    until(lambda: state(fresh_book, document)["status"] == "pending")
    until(lambda: not programs())


def test_while_another_process_of_the_machine_makes_one_a_job_waits(fresh_book: Book) -> None:
    own: DocumentWorker = fresh_book.app.extensions[EXTENSION]
    with own.lock_path(0).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with working(fresh_book.app):
            document = job_of(fresh_book)["id"]
            sleep(2)
            assert (programs(), state(fresh_book, document)["status"]) == ([], "pending")
            fcntl.flock(lock, fcntl.LOCK_UN)
            until(lambda: has_ended(fresh_book, document))


def test_tenants_take_turns(fresh_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    books = {slug: long_book(fresh_app, slug) for slug in ("eur", "km")}
    asked = [job_of(books[slug], start=f"20{year}-01-01T00:00:00Z")["id"] for slug in books for year in (10, 11)]
    made: list[str] = []
    log = worker.log.info
    monkeypatch.setattr(worker.log, "info", lambda event, **told: made.append(told["tenant"]) or log(event, **told))
    with working(fresh_app):
        until(lambda: len(made) == len(asked))
    assert made == ["eur", "km", "eur", "km"]


def test_a_look_wakes_the_worker_for_a_job_that_another_process_left(fresh_book: Book) -> None:
    document = job_of(fresh_book)["id"]
    own: DocumentWorker = fresh_book.app.extensions[EXTENSION]
    assert own.take(0) is not None
    assert own.take(0) is None, "the process that was asked forgot it"
    with working(fresh_book.app):
        until(lambda: has_ended(fresh_book, document))


def test_a_job_of_a_tenant_that_is_gone_stops_nothing(fresh_book: Book) -> None:
    with working(fresh_book.app) as own:
        own.wake(uuid4())
        document = job_of(fresh_book)["id"]
        until(lambda: has_ended(fresh_book, document))


def test_a_failing_program_is_logged_and_the_next_look_tries_again(
    fresh_book: Book, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "REST_SECONDS", 0.1)
    with working(fresh_book.app):
        with monkeypatch.context() as patch:
            patch.setattr(worker, "_PROGRAM", "raise SystemExit('no memory')")
            document = job_of(fresh_book)["id"]
            until(lambda: "document_program_failed" in (said := capsys.readouterr().out) and "no memory" in said)
        until(lambda: has_ended(fresh_book, document))
