"""The program: progress while it works, a reason when it fails, and the job given back when it is stopped."""

from collections.abc import Iterable, Iterator
from time import sleep
from typing import Any

import pytest

from app.statements import pdf
from app.statements.documents import progress, renderer
from app.statements.models import Line, Statement
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book, fill
from tests.app.statements.documents.conftest import change, job_of, render, state, until


def test_the_progress_is_shown_while_the_document_is_laid_out(
    fresh_book: Book, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_again(fresh_database, fresh_book, 1_000)
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.01)
    document = job_of(fresh_book)["id"]
    statement_document = pdf.statement_document

    def watched(tenant: Tenant, statement: Statement, lines: Iterable[Line]) -> bytes:
        def looked() -> Iterator[Line]:
            for number, line in enumerate(lines):
                if number in {0, 250, 990}:
                    until(lambda percent=number // 10: state(fresh_book, document)["progress"] == percent)
                yield line

        return statement_document(tenant, statement, looked())

    monkeypatch.setattr(pdf, "statement_document", watched)
    assert render(fresh_book.app) == renderer.Outcome(document, "done")


def fill_again(database: Database, book: Book, count: int) -> None:
    """Replace the wallet's movements."""
    superuser = database.as_superuser()
    superuser.execute("SET session_replication_role = replica")
    superuser.execute("DELETE FROM eur_schema.wallet_transactions WHERE wallet_id = %s", (book.wallet_id,))
    fill(database, book, count)


def test_a_job_whose_statement_does_not_add_up_fails_with_the_reason(
    fresh_book: Book, fresh_database: Database
) -> None:
    document = job_of(fresh_book)["id"]
    superuser = fresh_database.as_superuser()
    superuser.execute("SET session_replication_role = replica")
    superuser.execute(b"UPDATE eur_schema.wallet_transactions SET amount_minor = 99 WHERE seq = 2")
    assert render(fresh_book.app) == renderer.Outcome(document, "statement_broken")
    shown = state(fresh_book, document)
    assert (shown["status"], shown["failure"]) == ("failed", "statement_broken")


def test_a_period_that_has_grown_too_long_fails_with_the_reason(
    fresh_book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = job_of(fresh_book)["id"]
    monkeypatch.setattr(pdf, "MAX_MOVEMENTS", 2)
    assert render(fresh_book.app) == renderer.Outcome(document, "statement_too_long")


@pytest.mark.parametrize("error", [SystemExit(143), RuntimeError("a fault")])
def test_a_program_that_is_stopped_or_fails_gives_its_job_back(
    fresh_book: Book, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    document = job_of(fresh_book)["id"]

    def stopped(*_: object) -> bytes:
        raise error

    statement_document = pdf.statement_document
    monkeypatch.setattr(pdf, "statement_document", stopped)
    with pytest.raises(type(error)):
        render(fresh_book.app)
    monkeypatch.setattr(pdf, "statement_document", statement_document)
    assert state(fresh_book, document)["status"] == "pending"
    assert render(fresh_book.app) == renderer.Outcome(document, "done")


def test_a_program_that_lost_its_job_stops_and_stores_nothing(
    fresh_book: Book, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.01)
    document = job_of(fresh_book)["id"]
    taken: list[Line] = []

    def slow(_: Tenant, __: Statement, lines: Iterable[Line]) -> bytes:
        for line in lines:
            taken.append(line)
            change(fresh_database, "attempt = 2", document)
            sleep(1)
        return b"stale"

    monkeypatch.setattr(pdf, "statement_document", slow)
    assert render(fresh_book.app) == renderer.Outcome(document, "lost")
    assert len(taken) == 1
    assert state(fresh_book, document)["status"] == "running"


def test_a_program_that_loses_its_job_with_the_last_line_stores_nothing(
    fresh_book: Book, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = job_of(fresh_book)["id"]

    def slow(*_: object) -> bytes:
        change(fresh_database, "attempt = 2", document)
        return b"stale"

    monkeypatch.setattr(pdf, "statement_document", slow)
    assert render(fresh_book.app) == renderer.Outcome(document, "lost")
    assert state(fresh_book, document)["status"] == "running"


def test_the_lease_is_extended_while_movements_are_read(
    fresh_book: Book, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant may have one connection only; then reports wait until the snapshot ends."""
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.01)
    document = job_of(fresh_book)["id"]
    read_statement = renderer.read_statement
    query = "SELECT leased_until > now() + interval '1 minute' FROM eur_schema.documents"

    def slow(*arguments: Any, **more: Any) -> Any:
        change(fresh_database, "leased_until = now() + interval '1 second'", document)
        until(lambda: fresh_database.as_superuser().execute(query).fetchall() == [(True,)])
        return read_statement(*arguments, **more)

    monkeypatch.setattr(renderer, "read_statement", slow)
    assert render(fresh_book.app) == renderer.Outcome(document, "done")
