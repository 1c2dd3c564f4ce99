"""A job is claimed by one program at a time, survives the program's death, and ends after five attempts."""

from collections.abc import Iterator

import pytest

from app.statements.documents import jobs
from tenant_schemas.flask import connections, tenant_context
from tenant_schemas.search_path import BindingEngine
from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book
from tests.app.statements.documents.conftest import change, job_of, state

LEASE_OVER = "leased_until = now() - interval '1 second'"


@pytest.fixture
def engine(fresh_book: Book) -> Iterator[BindingEngine]:
    with fresh_book.app.app_context(), tenant_context("eur") as tenant:
        yield connections().engine(tenant)


def test_the_oldest_job_is_claimed_first_and_none_twice(fresh_book: Book, engine: BindingEngine) -> None:
    assert (jobs.is_waiting(engine), jobs.claim(engine)) == (False, None)
    asked = [job_of(fresh_book)["id"], job_of(fresh_book, start="2010-01-01T00:00:00Z")["id"]]
    assert jobs.is_waiting(engine)
    claimed = [jobs.claim(engine) for _ in range(3)]
    assert [job and str(job.id) for job in claimed] == [*asked, None]
    assert not jobs.is_waiting(engine)
    assert state(fresh_book, asked[0])["status"] == "running"


def test_a_job_that_another_program_is_claiming_is_passed_over(
    fresh_book: Book, engine: BindingEngine, fresh_database: Database
) -> None:
    first, second = job_of(fresh_book)["id"], job_of(fresh_book, start="2010-01-01T00:00:00Z")["id"]
    other = fresh_database.as_superuser()
    with other.transaction():
        other.execute("SELECT FROM eur_schema.documents WHERE id = %s FOR UPDATE", (first,))
        job = jobs.claim(engine)
    assert job is not None
    assert str(job.id) == second


def test_a_job_whose_program_died_is_claimed_again_and_the_dead_one_can_write_nothing(
    fresh_book: Book, engine: BindingEngine, fresh_database: Database
) -> None:
    document = job_of(fresh_book)["id"]
    dead = jobs.claim(engine)
    assert dead is not None
    jobs.report(engine, dead, movements=3, rendered=2)
    assert state(fresh_book, document)["progress"] == 66
    change(fresh_database, LEASE_OVER, document)
    assert jobs.is_waiting(engine)
    next_one = jobs.claim(engine)
    assert next_one is not None
    assert (next_one.id, next_one.attempt, dead.attempt) == (dead.id, 2, 1)
    assert state(fresh_book, document)["progress"] == 0
    with pytest.raises(jobs.LeaseLost):
        jobs.report(engine, dead, movements=3, rendered=3)
    for end in (lambda: jobs.finish(engine, dead, b"x"), lambda: jobs.fail(engine, dead, "x")):
        with pytest.raises(jobs.LeaseLost):
            end()
    jobs.finish(engine, next_one, b"the document")
    assert state(fresh_book, document)["status"] == "done"


def test_a_lease_of_before_the_clock_was_set_back_is_over(
    fresh_book: Book, engine: BindingEngine, fresh_database: Database
) -> None:
    document = job_of(fresh_book)["id"]
    jobs.claim(engine)
    change(fresh_database, "leased_until = now() + interval '1 year'", document)
    assert jobs.is_waiting(engine)
    again = jobs.claim(engine)
    assert again is not None
    assert (str(again.id), again.attempt) == (document, 2)


def test_a_report_extends_the_lease(fresh_book: Book, engine: BindingEngine, fresh_database: Database) -> None:
    document = job_of(fresh_book)["id"]
    job = jobs.claim(engine)
    assert job is not None
    change(fresh_database, "leased_until = now() + interval '1 second'", document)
    jobs.report(engine, job, movements=3, rendered=1)
    query = "SELECT leased_until > now() + interval '1 minute' FROM eur_schema.documents"
    assert fresh_database.as_superuser().execute(query).fetchall() == [(True,)]


@pytest.mark.parametrize("given_back", [True, False])
def test_after_five_attempts_a_job_has_failed(
    fresh_book: Book, engine: BindingEngine, fresh_database: Database, *, given_back: bool
) -> None:
    document = job_of(fresh_book)["id"]
    for attempt in range(1, 6):
        job = jobs.claim(engine)
        assert job is not None
        assert job.attempt == attempt
        if given_back:
            jobs.give_back(engine, job)
        else:
            change(fresh_database, LEASE_OVER, document)
    assert jobs.claim(engine) is None
    shown = state(fresh_book, document)
    assert (shown["status"], shown["failure"]) == ("failed", "attempts_exhausted")
