"""Long statements: a member's wallet with more movements than a request lays out."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app.statements import pdf
from app.statements.documents.renderer import Outcome, render_next
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book

DIRECT = 2


@pytest.fixture(autouse=True)
def few_direct_movements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "DIRECT_MOVEMENTS", DIRECT)


@pytest.fixture
def fresh_book(fresh_app: Flask) -> Book:
    """A wallet with a statement that is too long for a request, in a tenant without other documents."""
    return long_book(fresh_app)


def long_book(app: Flask, slug: str = "eur", **more: Any) -> Book:
    book = Book(app, slug, **more)
    for _ in range(DIRECT + 1):
        book.post("deposit", 100, description="Kafa")
    return book


def asked(book: Book, *, by_admin: bool = False, **more: Any) -> TestResponse:
    """The answer to a request for the wallet's statement as PDF."""
    return book.ask(format="pdf", by_admin=by_admin, **more)


def job_of(book: Book, **more: Any) -> dict[str, Any]:
    """The state of the document that a request started."""
    answer = asked(book, **more)
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.get_json()
    return shown


def state(book: Book, document_id: str, *, by_admin: bool = False) -> dict[str, Any]:
    """The state of the document now."""
    side, person = ("admin", book.admin) if by_admin else ("wallet", book.member)
    answer = book.api.get(f"/api/{side}/documents/{document_id}", person, book.slug)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.get_json()
    return shown


def render(app: Flask, slug: str = "eur") -> Outcome | None:
    """Make the tenant's next document in this process."""
    with app.app_context(), tenant_context(slug) as tenant:
        return render_next(connections().engine(tenant), tenant)


def change(database: Database, assignments: str, document_id: str, slug: str = "eur") -> None:
    """Change a document's row as no program does."""
    statement = f"UPDATE {slug}_schema.documents SET {assignments} WHERE id = %s"
    database.as_superuser().execute(statement.encode(), (document_id,))


def until(is_so: Callable[[], object], seconds: float = 60) -> None:
    deadline = monotonic() + seconds
    while not is_so():
        assert monotonic() < deadline
        sleep(0.05)
