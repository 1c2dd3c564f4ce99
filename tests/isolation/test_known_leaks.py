"""Ways in which other systems have swapped tenants, each tried on this one, in both login modes.

The tests ask PostgreSQL for the binding, within a session of the application. The simpler cases are with the engine:
tests/tenant_schemas/test_context.py and test_flask.py.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import Context, copy_context
from threading import Barrier, Event, Thread
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from app.db import db
from app.wallets.models import Wallet
from tenant_schemas.context import current_tenant
from tenant_schemas.errors import BindingChanged, NotBound
from tenant_schemas.flask import shared_side, tenant_context
from tests.factories.people import People

ROUNDS = 10
SLUGS = ("eur", "km")
WHERE = sa.text("SELECT current_user::text, current_schema()::text")


def where() -> tuple[str, str]:
    """The current role and schema, from PostgreSQL."""
    user, schema_name = db.session.execute(WHERE).one()
    return str(user), str(schema_name)


def bound_to(slug: str) -> tuple[str, str]:
    return f"tenant_{slug}", f"{slug}_schema"


def is_unbound() -> bool:
    """Not bound to the shared side either: the first query is refused."""
    try:
        where()
    except NotBound:
        return True
    finally:
        db.session.rollback()
    return False


@pytest.fixture
def inside(app: Flask) -> Iterator[Flask]:
    with app.app_context():
        yield app


@pytest.fixture
def wallets(people: People) -> dict[str, UUID]:
    """The id of one person's wallet in each tenant."""
    person = people.make(eur="member", km="member")
    return {slug: people.wallet(person, slug, balance_minor=100) for slug in SLUGS}


def in_threads(*works: Callable[[], Any]) -> list[Any]:
    """Run all at once, each in its own thread. Raises the first error."""
    with ThreadPoolExecutor(len(works)) as threads:
        return [future.result(timeout=30) for future in [threads.submit(work) for work in works]]


# Threads.


def test_overlapping_contexts_of_two_threads_never_swap(app: Flask) -> None:
    """Entered, checked and exited in lockstep; exited in the order of entry, not in reverse."""
    together = Barrier(2, timeout=30)

    def work(slug: str) -> None:
        with app.app_context():
            for _ in range(ROUNDS):
                with tenant_context(slug):
                    together.wait()
                    assert where() == bound_to(slug)
                    together.wait()
                    db.session.commit()
                    assert where() == bound_to(slug)
                    db.session.remove()
                assert is_unbound()

    in_threads(lambda: work("eur"), lambda: work("km"))


def test_a_decorated_job_remembers_nothing_of_another_thread(app: Flask) -> None:
    """Many threads may enter one decorating context object at once, and may nest it."""
    together = Barrier(3, timeout=30)

    @tenant_context("km")
    def job() -> tuple[str, str]:
        together.wait()
        found = where()
        together.wait()
        db.session.remove()
        return found

    def work(slug: str | None) -> tuple[str, str]:
        with app.app_context(), ExitStack() as stack:
            if slug:
                stack.enter_context(tenant_context(slug))
            found = job()
            assert where() == bound_to(slug) if slug else is_unbound()
            db.session.remove()
            return found

    assert in_threads(lambda: work("eur"), lambda: work("km"), lambda: work(None)) == [bound_to("km")] * 3


@pytest.mark.usefixtures("inside")
def test_a_thread_started_inside_a_context_is_bound_to_nothing(app: Flask) -> None:
    """It is not on the shared side either, and its question for the current tenant is refused."""

    def work() -> bool:
        with app.app_context():
            with pytest.raises(NotBound):
                current_tenant()
            return is_unbound()

    for context in (tenant_context("eur"), shared_side()):
        with context:
            assert in_threads(work, work) == [True, True]


@pytest.mark.usefixtures("inside")
def test_a_pool_of_threads_keeps_no_tenant_between_jobs(app: Flask) -> None:
    """One thread runs job after job; some jobs fail or leave their db transaction open."""

    def serve(slug: str, end: str) -> tuple[str, str]:
        with app.app_context():
            assert is_unbound()
            with tenant_context(slug):
                found = where()
                if end == "raise":
                    raise ZeroDivisionError
                if end == "leave the transaction open":
                    return found
                db.session.commit()
            return found

    with ThreadPoolExecutor(1) as thread:
        for slug in (*SLUGS, *SLUGS):
            for end in ("commit", "raise", "leave the transaction open"):
                future = thread.submit(serve, slug, end)
                if end == "raise":
                    assert isinstance(future.exception(timeout=30), ZeroDivisionError)
                else:
                    assert future.result(timeout=30) == bound_to(slug)


@pytest.mark.usefixtures("inside")
def test_a_context_that_is_carried_into_a_thread_is_carried_on_purpose_and_not_back(app: Flask) -> None:
    """`copy_context` copies the binding into the thread; a binding made in the thread stays there."""

    def work() -> tuple[str, str]:
        with app.app_context():
            found = where()
            db.session.remove()
            with tenant_context("km"):
                assert where() == bound_to("km")
                db.session.remove()
            return found

    with tenant_context("eur"):
        carried: Context = copy_context()
        assert in_threads(lambda: carried.run(work)) == [bound_to("eur")]
        assert where() == bound_to("eur")
    db.session.remove()
    assert is_unbound()


@pytest.mark.usefixtures("inside")
def test_a_session_handed_to_another_thread_takes_that_threads_binding_or_none(app: Flask) -> None:
    """The session stores no tenant. Another thread's tenant is refused inside its open db transaction."""
    with tenant_context("eur"):
        assert where() == bound_to("eur")
        session: Session = db.session()

        def ask(slug: str | None) -> Any:
            with app.app_context(), ExitStack() as stack:
                if slug:
                    stack.enter_context(tenant_context(slug))
                with pytest.raises(BindingChanged if slug else NotBound):
                    session.execute(WHERE)

        in_threads(lambda: ask(None))
        in_threads(lambda: ask("km"))
        assert where() == bound_to("eur")


# Exceptions, rollbacks and cached state of the session.


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("failure", ["in Python", "in PostgreSQL", "of the binding"])
def test_an_exception_inside_gives_back_the_outer_tenant_and_its_rows(wallets: dict[str, UUID], failure: str) -> None:
    def fail() -> None:
        assert where() == bound_to("km")
        if failure == "in Python":
            raise ZeroDivisionError
        if failure == "in PostgreSQL":
            db.session.execute(sa.text("SELECT 1 / 0"))
        with shared_side():
            where()

    for _ in range(2):
        with tenant_context("eur"):
            with pytest.raises((ZeroDivisionError, sa.exc.DataError, BindingChanged)), tenant_context("km"):
                fail()
            db.session.rollback()
            assert where() == bound_to("eur")
            assert db.session.scalars(sa.select(Wallet.id).where(Wallet.id.in_(wallets.values()))).all() == [
                wallets["eur"]
            ]
        db.session.remove()
        assert is_unbound()


@pytest.mark.usefixtures("inside")
def test_after_a_rollback_the_next_read_is_the_same_tenants(wallets: dict[str, UUID]) -> None:
    """In another system a ROLLBACK undid the search_path while a cache said that it was set."""
    for slug, other in (SLUGS, SLUGS[::-1]):
        with tenant_context(slug):
            for _ in range(3):
                assert where() == bound_to(slug)
                assert db.session.get(Wallet, wallets[slug])
                assert db.session.get(Wallet, wallets[other]) is None
                db.session.rollback()
        db.session.remove()


@pytest.mark.usefixtures("inside")
def test_after_a_savepoint_is_rolled_back_the_next_read_is_the_same_tenants(wallets: dict[str, UUID]) -> None:
    """Rolling back to a savepoint undoes each SET LOCAL after it; ours comes before any savepoint."""
    for slug, other in (SLUGS, SLUGS[::-1]):
        with tenant_context(slug):
            savepoint = db.session.begin_nested()
            assert where() == bound_to(slug)
            savepoint.rollback()
            assert where() == bound_to(slug)
            with pytest.raises(sa.exc.DataError), db.session.begin_nested():
                db.session.execute(sa.text("SELECT 1 / 0"))
            assert where() == bound_to(slug)
            assert db.session.get(Wallet, wallets[other]) is None
            db.session.commit()
            assert where() == bound_to(slug)
        db.session.remove()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_a_row_read_under_one_tenant_is_not_refreshed_under_another(wallets: dict[str, UUID], end: str) -> None:
    """An object that outlives its db transaction is refreshed on access; under another tenant that is refused."""
    with tenant_context("eur"):
        wallet = db.session.get(Wallet, wallets["eur"])
        assert wallet is not None
        getattr(db.session, end)()
    with tenant_context("km"):
        if end == "close":
            assert wallet.id == wallets["eur"]  # Detached: it keeps its loaded values.
        else:
            with pytest.raises(BindingChanged):
                _ = wallet.balance_minor


# One thread, several concurrent tasks.


@pytest.mark.usefixtures("inside")
def test_a_generator_that_is_left_halfway_does_not_keep_its_tenant() -> None:
    """A generator runs in its consumer's context, so the consumer sees its binding. Our generators read their rows
    before they yield; the open db transaction catches a generator that does not.
    """

    def rows(slug: str) -> Iterator[tuple[str, str]]:
        for _ in range(3):
            with tenant_context(slug):
                found = where()
                db.session.commit()
            yield found

    eur, km = rows("eur"), rows("km")
    with tenant_context("km"):
        for _ in range(2):
            assert next(eur) == bound_to("eur")
            assert where() == bound_to("km")
            db.session.commit()
            assert next(km) == bound_to("km")
            assert current_tenant().slug == "km"
    eur.close()
    assert is_unbound()


@pytest.mark.usefixtures("inside")
def test_tasks_of_one_loop_never_swap(app: Flask) -> None:
    """Each task has its own context. A task started inside a block begins with the block's binding."""

    async def work(slug: str, turns: asyncio.Barrier) -> None:
        with app.app_context(), tenant_context(slug):
            for _ in range(ROUNDS):
                await turns.wait()
                assert current_tenant().slug == slug
                assert where() == bound_to(slug)
                db.session.remove()
                await asyncio.sleep(0)
        assert is_unbound()

    async def all_work() -> None:
        turns = asyncio.Barrier(2)
        await asyncio.gather(work("eur", turns), work("km", turns))
        assert is_unbound()

    asyncio.run(all_work())


def test_greenlets_never_swap(app: Flask) -> None:
    """SQLAlchemy installs greenlet. As with gevent, each greenlet has its own context."""
    greenlet = pytest.importorskip("greenlet")
    main = greenlet.getcurrent()

    def work(slug: str) -> None:
        with app.app_context():
            with tenant_context(slug):
                for _ in range(ROUNDS):
                    assert current_tenant().slug == slug
                    assert where() == bound_to(slug)
                    db.session.remove()
                    main.switch()
            assert is_unbound()

    lines = [greenlet.greenlet(lambda slug=slug: work(slug)) for slug in SLUGS]
    for _ in range(ROUNDS + 1):
        for line in lines:
            line.switch()
    assert all(line.dead for line in lines)


# Requests.


def test_a_thread_that_a_request_has_started_outlives_it_unbound(app: Flask) -> None:
    """During the request and after its end."""
    is_over, seen = Event(), []

    def work() -> None:
        with app.app_context():
            seen.append(is_unbound())
            is_over.wait(30)
            seen.append(is_unbound())

    with app.test_request_context(), tenant_context("eur"):
        thread = Thread(target=work)
        thread.start()
        assert where() == bound_to("eur")
        db.session.remove()
    is_over.set()
    thread.join(30)
    assert seen == [True, True]
