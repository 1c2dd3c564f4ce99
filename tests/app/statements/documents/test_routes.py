"""A long statement is a job to poll, and then a document; of the same member and tenant only."""

from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from app.statements import pdf
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book
from tests.app.statements.documents.conftest import asked, change, job_of, long_book, render, state
from tests.app.statements.test_pdf import read


@pytest.mark.parametrize("by_admin", [False, True])
def test_a_long_statement_is_a_job_and_then_a_document(fresh_book: Book, *, by_admin: bool) -> None:
    book, person = fresh_book, fresh_book.admin if by_admin else fresh_book.member
    answer = asked(book, by_admin=by_admin)
    job, location = answer.get_json(), answer.headers["Location"]
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")
    assert location == f"/api/{'admin' if by_admin else 'wallet'}/documents/{job['id']}"
    assert (job["status"], job["progress"], job["movements"], job["walletId"]) == ("pending", 0, 3, str(book.wallet_id))
    assert (job["content"], job["failure"], job["finishedAt"]) == (None, None, None)
    assert job["expiresAt"] > job["requestedAt"]
    looked = book.api.get(location, person, book.slug)
    assert (looked.get_json(), looked.headers["Retry-After"]) == (job, "1")
    assert book.api.get(f"{location}/content", person, book.slug).get_json()["code"] == "document_not_ready"

    assert render(book.app) is not None
    done = book.api.get(location, person, book.slug)
    shown = done.get_json()
    assert (shown["status"], shown["progress"], shown["content"]) == ("done", 100, f"{location}/content")
    assert "Retry-After" not in done.headers
    content = book.api.get(shown["content"], person, book.slug)
    assert (content.status_code, content.content_type) == (200, "application/pdf")
    assert content.headers["Content-Disposition"] == 'attachment; filename="eur-statement.pdf"'
    assert read(content.data)[0].count("Kafa") == 3
    again = asked(book, by_admin=by_admin)
    assert (again.status_code, again.data) == (200, content.data), "the request itself answers with it from then on"


def test_a_path_that_names_the_tenant_leads_to_paths_that_name_it(fresh_book: Book) -> None:
    book = fresh_book
    query = {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
    location = book.api.get("/api/eur/wallet/statement.pdf", book.member, query_string=query).headers["Location"]
    render(book.app)
    content = book.api.get(location, book.member).get_json()["content"]
    assert content.startswith("/api/eur/wallet/documents/")
    assert book.api.get(content, book.member).status_code == 200


def test_a_short_statement_is_answered_at_once(app: Flask) -> None:
    book = Book(app)
    book.post("deposit", 1)
    assert asked(book).content_type == "application/pdf"


def test_a_document_is_of_its_member_its_readers_and_its_tenant(fresh_app: Flask) -> None:
    book, other, elsewhere = long_book(fresh_app), Book(fresh_app), Book(fresh_app, "km")
    own, of_admin = job_of(book)["id"], job_of(book, by_admin=True)["id"]
    assert own != of_admin
    while render(fresh_app):
        pass

    def statuses(document_id: str, person: Any, slug: str, side: str) -> set[tuple[int, str | None]]:
        answers = [
            book.api.get(f"/api/{side}/documents/{document_id}{part}", person, slug) for part in ("", "/content")
        ]
        return {(each.status_code, (each.get_json(silent=True) or {}).get("code")) for each in answers}

    unknown = {(404, "document_not_found")}
    assert statuses(own, book.member, "eur", "wallet") == {(200, None)}
    assert statuses(own, book.admin, "eur", "admin") == statuses(of_admin, book.admin, "eur", "admin") == {(200, None)}
    assert statuses(of_admin, book.member, "eur", "wallet") == unknown, "an admin asked for it"
    assert statuses(of_admin, book.admin, "eur", "wallet") == unknown, "it is about another member's wallet"
    assert statuses(own, other.member, "eur", "wallet") == unknown
    assert statuses(own, book.member, "eur", "admin") == {(403, "admin_required")}
    assert statuses(own, elsewhere.member, "km", "wallet") == statuses(own, elsewhere.admin, "km", "admin") == unknown
    assert statuses(str(uuid4()), book.member, "eur", "wallet") == unknown


def test_an_expired_document_is_as_if_it_were_not_and_goes_with_the_next_request(
    fresh_book: Book, fresh_database: Database
) -> None:
    first = job_of(fresh_book)["id"]
    change(fresh_database, "expires_at = now()", first)
    answer = fresh_book.api.get(f"/api/wallet/documents/{first}", fresh_book.member, "eur")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "document_not_found")
    assert render(fresh_book.app) is None
    second = job_of(fresh_book)["id"]
    assert ids(fresh_database) == [second]


def ids(database: Database) -> list[str]:
    rows = database.as_superuser().execute(b"SELECT id::text FROM eur_schema.documents ORDER BY requested_at")
    return [document_id for (document_id,) in rows]


def test_the_same_statement_is_the_same_job_until_it_has_another_movement(fresh_book: Book) -> None:
    first = job_of(fresh_book)["id"]
    assert job_of(fresh_book)["id"] == first
    fresh_book.post("deposit", 1)
    assert job_of(fresh_book)["id"] != first


def test_what_failed_may_be_asked_for_again(fresh_book: Book, fresh_database: Database) -> None:
    first = job_of(fresh_book)["id"]
    failed = "status = 'failed', failure = 'attempts_exhausted', finished_at = now()"
    change(fresh_database, failed, first)
    shown = state(fresh_book, first)
    assert (shown["status"], shown["failure"], shown["content"]) == ("failed", "attempts_exhausted", None)
    assert job_of(fresh_book)["id"] != first


def test_a_caller_has_two_unfinished_documents_and_a_tenant_twenty(fresh_book: Book, fresh_database: Database) -> None:
    book = fresh_book
    starts = [f"20{year:02}-01-01T00:00:00Z" for year in range(10, 20)]
    jobs = [job_of(book, start=start)["id"] for start in starts[:2]]
    refused = asked(book, start=starts[2])
    said = refused.get_json()
    assert (refused.status_code, said["code"], said["whose"], said["limit"]) == (429, "too_many_documents", "caller", 2)
    assert "Retry-After" in refused.headers
    assert job_of(book, start=starts[1])["id"] == jobs[1], "a known one is no new one"
    assert asked(book, start=starts[2], by_admin=True).status_code == 202, "another caller has an own share"
    render(book.app)
    assert asked(book, start=starts[2]).status_code == 202
    fresh_database.as_superuser().execute(
        b"INSERT INTO eur_schema.documents (wallet_id, requested_by, period_start, period_end, movements)"
        b" SELECT gen_random_uuid(), gen_random_uuid(), now(), now(), 1 FROM generate_series(1, 17)"
    )
    said = asked(book, start=starts[3], by_admin=True).get_json()
    assert (said["code"], said["whose"], said["limit"]) == ("too_many_documents", "tenant", 20)


def test_simultaneous_requests_of_a_caller_count_each_other(fresh_book: Book, fresh_database: Database) -> None:
    """A request that has not committed is counted by the next one, which waits for it."""
    book, other = fresh_book, fresh_database.as_tenant("eur")
    request = "SELECT document_request_v1(%s, %s, %s, now(), 3)"
    with ThreadPoolExecutor(1) as aside:
        with other.transaction():
            for start in ("2010-01-01Z", "2011-01-01Z"):
                other.execute(request, (book.wallet_id, book.member.user_id, start))
            answer = aside.submit(lambda: asked(book, start="2012-01-01T00:00:00Z"))
            sleep(0.5)
        assert answer.result().status_code == 429


def test_a_callers_sixth_document_takes_the_place_of_the_oldest(fresh_book: Book, fresh_database: Database) -> None:
    made = []
    for year in range(10, 17):
        made.append(job_of(fresh_book, start=f"20{year}-01-01T00:00:00Z")["id"])
        render(fresh_book.app)
    assert ids(fresh_database) == made[2:]


def test_more_movements_than_a_document_holds_are_no_job(fresh_book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "MAX_MOVEMENTS", 2)
    answer = asked(fresh_book)
    said = answer.get_json()
    assert (answer.status_code, said["code"], said["movements"], said["limit"]) == (422, "statement_too_long", 3, 2)
    assert "CSV" in said["detail"]


def test_no_job_is_written_into_an_archived_tenant(fresh_book: Book, fresh_database: Database) -> None:
    auditor = fresh_book.admin
    superuser = fresh_database.as_superuser()
    superuser.execute("UPDATE shared.memberships SET role = 'auditor' WHERE user_id = %s", (auditor.user_id,))
    superuser.execute("UPDATE shared.tenants SET status = 'archived' WHERE slug = 'eur'")
    answer = asked(fresh_book, by_admin=True)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "statement_too_long")
    assert ids(fresh_database) == []


def test_a_schema_of_before_is_served_when_it_is_migrated(fresh_book: Book, fresh_database: Database) -> None:
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET revision = '0008' WHERE slug = 'eur'")
    assert asked(fresh_book).get_json()["code"] == "schema_behind"
