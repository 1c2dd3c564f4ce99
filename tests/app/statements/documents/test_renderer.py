"""The program: progress while it works, a reason when it fails, and the job given back when it is stopped."""

from typing import Any

import pytest

from app.statements import pdf
from app.statements.documents import renderer
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book, fill
from tests.app.statements.documents.conftest import job_of, render, state


def test_the_progress_is_shown_while_the_document_is_laid_out(
    fresh_book: Book, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_again(fresh_database, fresh_book, 1_000)
    monkeypatch.setattr(renderer, "REPORT_SECONDS", 0)
    document = job_of(fresh_book)["id"]
    seen = []
    report = renderer.jobs.report

    def noted(*arguments: Any, **more: Any) -> None:
        report(*arguments, **more)
        shown = state(fresh_book, document)
        seen.append((shown["status"], shown["progress"]))

    monkeypatch.setattr(renderer.jobs, "report", noted)
    outcome = render(fresh_book.app)
    assert outcome == renderer.Outcome(document, "done")
    assert seen == [("running", percent) for percent in (0, 25, 50, 75, 99)]


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


def test_a_program_that_lost_its_job_stores_nothing(
    fresh_book: Book, fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = job_of(fresh_book)["id"]
    statement_document = pdf.statement_document

    def slow(*arguments: Any) -> bytes:
        made = statement_document(*arguments)
        fresh_database.as_superuser().execute(b"UPDATE eur_schema.documents SET attempt = 2")
        return made

    monkeypatch.setattr(pdf, "statement_document", slow)
    assert render(fresh_book.app) == renderer.Outcome(document, "lost")
    assert state(fresh_book, document)["status"] == "running"
