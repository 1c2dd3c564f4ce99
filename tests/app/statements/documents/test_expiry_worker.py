"""Expired documents are deleted while the service runs, in tenants with a connection at hand."""

from threading import enumerate as running_threads

from app.statements.documents.expiry_worker import start_document_expiry_worker, sweep
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book
from tests.app.statements.documents.conftest import change, job_of, until
from tests.app.statements.documents.test_routes import ids


def test_a_sweep_deletes_what_has_expired_and_nothing_else(fresh_book: Book, fresh_database: Database) -> None:
    expired, kept = (job_of(fresh_book, start=f"20{year}-01-01T00:00:00Z")["id"] for year in (10, 11))
    change(fresh_database, "expires_at = now()", expired)
    with fresh_book.app.app_context():
        sweep()
    assert ids(fresh_database) == [kept]


def test_the_timer_sweeps(fresh_book: Book, fresh_database: Database) -> None:
    change(fresh_database, "expires_at = now()", job_of(fresh_book)["id"])
    stop = start_document_expiry_worker(fresh_book.app, 0.05)
    try:
        until(lambda: ids(fresh_database) == [])
    finally:
        stop.set()
    until(lambda: all(thread.name != "document-expiry" for thread in running_threads()))


def test_a_tenant_that_fails_stops_no_other(fresh_book: Book, fresh_database: Database) -> None:
    book = Book(fresh_book.app, "km")
    assert book.statement()["movements"] == []
    change(fresh_database, "expires_at = now()", job_of(fresh_book)["id"])
    fresh_database.as_superuser().execute(b"DROP FUNCTION km_schema.documents_expire_v1")
    with fresh_book.app.app_context():
        sweep()
    assert ids(fresh_database) == []
