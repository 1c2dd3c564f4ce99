"""Long documents of a real server: another process spends the time, and a stopped one leaves its jobs to the next."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import END, START, Book, fill
from tests.app.statements.documents.conftest import until
from tests.app.statements.documents.test_worker import PROGRAM
from tests.factories.served import PATIENCE_SECONDS, served

MOVEMENTS = 10_000
QUERY = {"from": START, "to": END}
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def book(fresh_app: Flask, fresh_database: Database) -> Book:
    book = Book(fresh_app)
    fill(fresh_database, book, MOVEMENTS)
    return book


@contextmanager
def client_of(book: Book, database: Database, log: Path, **settings: str) -> Iterator[httpx.Client]:
    """The member, talking to gunicorn."""
    headers = {"Authorization": f"Bearer {book.member.token}", "X-Tenant": "eur"}
    with (
        served(database, log, "--workers", "2", "--threads", "2", **settings) as url,
        httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_SECONDS) as client,
    ):
        yield client


def job_of(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/api/wallet/statement.pdf", params=QUERY)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job | {"location": answer.headers["Location"]}


def processes(part: bytes) -> dict[int, list[int]]:
    """The processes with this part in their command: the ticks of processor time of each and of its ended children."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if part in (folder / "cmdline").read_bytes():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                found[int(folder.name)] = [int(field) for field in fields[11:15]]
        except (OSError, ValueError):
            continue
    return found


def seconds(port: int, *, of_children: bool) -> float:
    """The processor time of the serving processes, or of the programs that they ran."""
    used = processes(f"127.0.0.1:{port}".encode()).values()
    return sum(sum(ticks[2:] if of_children else ticks[:2]) for ticks in used) / CLOCK_TICKS


def test_the_serving_processes_spend_no_time_on_the_document(
    book: Book, fresh_database: Database, tmp_path: Path
) -> None:
    with client_of(book, fresh_database, tmp_path / "log") as client:
        assert client.get("/api/wallet/statement.pdf", params=QUERY | {"to": START.replace("2000", "2001")}).is_success
        own = seconds(client.base_url.port or 0, of_children=False)
        job = job_of(client)
        states = [job]

        def is_done() -> bool:
            sleep(0.5)
            states.append(client.get(job["location"]).json())
            return bool(states[-1]["status"] == "done")

        until(is_done, 120)
        spent = seconds(client.base_url.port or 0, of_children=False) - own
        until(lambda: seconds(client.base_url.port or 0, of_children=True) > 0)
        by_programs = seconds(client.base_url.port or 0, of_children=True)
        document = client.get(states[-1]["content"])
        assert (document.status_code, document.content[:5]) == (200, b"%PDF-")
        assert client.get("/api/wallet/statement.pdf", params=QUERY).content == document.content
    assert by_programs > 1, "the program imports the code and lays out 10,000 movements"
    assert spent < by_programs / 2, (spent, by_programs)
    progress = [state["progress"] for state in states]
    assert progress == sorted(progress)


def test_a_server_that_is_stopped_gives_its_job_back_and_the_next_one_makes_it(
    book: Book, fresh_database: Database, tmp_path: Path
) -> None:
    with client_of(book, fresh_database, tmp_path / "log") as client:
        job = job_of(client)
        until(lambda: client.get(job["location"]).json()["status"] == "running")
        before = set(processes(PROGRAM))
        assert before
    until(lambda: not before & set(processes(PROGRAM)))
    given_back = "SELECT status FROM eur_schema.documents WHERE id = %s"
    assert fresh_database.as_superuser().execute(given_back, (job["id"],)).fetchone() == ("pending",)
    with client_of(book, fresh_database, tmp_path / "log2") as client:
        until(lambda: client.get(job["location"]).json()["status"] == "done", 120)


def test_a_machine_without_renderers_leaves_jobs_to_others(
    book: Book, fresh_database: Database, tmp_path: Path
) -> None:
    with client_of(book, fresh_database, tmp_path / "log", DOCUMENT_RENDERERS="0") as client:
        job = job_of(client)
        sleep(2)
        assert client.get(job["location"]).json()["status"] == "pending"
