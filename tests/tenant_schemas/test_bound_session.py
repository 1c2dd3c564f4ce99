"""An object of one tenant is not returned, refreshed or written under another, whatever its key and the login."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    make_transient,
    mapped_column,
    relationship,
    scoped_session,
)

from tenant_schemas.connections import Connections, Limits
from tenant_schemas.errors import BindingChanged, NotBound
from tenant_schemas.flask import TenantDatabase, shared_side, tenant_context
from tenant_schemas.testing.plugin import Database, copy_of

NOTE = UUID("11111111-1111-4111-8111-111111111111")


class Model(DeclarativeBase):
    """Tables that each tenant has, with rows of the same keys."""


class Shelf(Model):
    """A natural key."""

    __tablename__ = "shelves"

    code: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="shelf", order_by="Book.id")


class Book(Model):
    """An integer key, a relationship and a deferred column."""

    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    blurb: Mapped[str] = mapped_column(deferred=True)
    shelf_code: Mapped[str] = mapped_column(sa.ForeignKey("shelves.code"))
    shelf: Mapped[Shelf] = relationship(back_populates="books")


class Note(Model):
    """A uuid."""

    __tablename__ = "notes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    text: Mapped[str]


TABLES = """
    SET search_path TO {schema};
    CREATE TABLE shelves (code text PRIMARY KEY, text text NOT NULL);
    CREATE TABLE books (id integer PRIMARY KEY, text text NOT NULL, blurb text NOT NULL DEFAULT '{slug}',
        shelf_code text NOT NULL REFERENCES shelves);
    CREATE TABLE notes (id uuid PRIMARY KEY, text text NOT NULL);
    GRANT ALL ON shelves, books, notes TO {role};"""
ROWS = """
    DELETE FROM books; DELETE FROM shelves; DELETE FROM notes;
    INSERT INTO shelves VALUES ('A', '{slug}'), ('B', '{slug}');
    INSERT INTO books SELECT n, '{slug}', '{slug}', 'A' FROM generate_series(1, 5) n;
    INSERT INTO notes VALUES ('11111111-1111-4111-8111-111111111111', '{slug}');"""
KEYS: dict[type[Any], Any] = {Shelf: "A", Book: 1, Note: NOTE}


def run(library: Database, script: str) -> None:
    for slug in ("eur", "km"):
        tenant = library.tenant(slug)
        library.as_superuser().execute(
            f"SET search_path TO {tenant.schema_name};"
            + script.format(schema=tenant.schema_name, role=tenant.role_name, slug=slug)
        )


@pytest.fixture(scope="module")
def library(template: Database) -> Iterator[Database]:
    with copy_of(template) as database:
        run(database, TABLES)
        yield database


@pytest.fixture(params=["own", "shared"])
def db(request: pytest.FixtureRequest, library: Database) -> Iterator[TenantDatabase]:
    """A small application with each kind of login, inside its context; every tenant has its rows."""
    run(library, ROWS)
    pool_role = library.roles.pool if request.param == "shared" else None
    connections = Connections(library.app_url, library.tenant_secret, Limits(max_connections=5), pool_role=pool_role)
    small, db = Flask("small"), TenantDatabase()
    db.init_tenancy(small, connections)
    with small.app_context():
        yield db
        db.session.rollback()
    connections.close()


@pytest.fixture
def of_eur(db: TenantDatabase) -> Callable[..., Any]:
    """An object of eur that is in the session, after a commit."""

    def of_eur(model: type[Any] = Shelf, key: Any = "A", *options: Any) -> Any:
        with tenant_context("eur"):
            found = db.session.get(model, key, options=options)
            assert found is not None
            assert found.text == "eur"
            db.session.commit()
        return found

    return of_eur


def texts(library: Database, model: type[Any] = Shelf) -> dict[str, set[str]]:
    query = "SELECT text FROM {}.{}"
    return {
        slug: {
            text
            for (text,) in library.as_superuser().execute(
                query.format(library.tenant(slug).schema_name, model.__tablename__)
            )
        }
        for slug in ("eur", "km")
    }


# Reading.


@pytest.mark.parametrize("expires", [True, False])
@pytest.mark.parametrize("model", KEYS)
def test_the_same_key_gives_each_tenants_own_object(db: TenantDatabase, model: type[Any], expires: bool) -> None:
    """By get, select and a query, after a commit with and without expiry, there and back."""
    key = KEYS[model]
    db.session().expire_on_commit = expires
    kept = []
    for slug in ("eur", "km", "eur"):
        with tenant_context(slug):
            found = [
                db.session.get(model, key),
                db.session.scalar(sa.select(model)),
                db.session.query(model).first(),
                db.session.scalar(sa.select(model).from_statement(sa.select(model).limit(1))),
            ]
            assert [each.text for each in found] == [slug] * 4
            db.session.commit()
        kept.append(found[0])
    assert kept[0] is kept[2]
    assert kept[0] is not kept[1]


def test_an_object_without_expiry_is_not_found_under_the_next_tenant(db: TenantDatabase, library: Database) -> None:
    """Not even if the next tenant has no such row, and in an open db transaction the look-up is refused."""
    library.as_superuser().execute(f"DELETE FROM {library.tenant('km').schema_name}.notes")
    with tenant_context("eur"):
        kept = db.session.get(Note, NOTE)
        with tenant_context("km"), pytest.raises(BindingChanged):
            db.session.get(Note, NOTE)
        db.session().expire_on_commit = False
        db.session.commit()
    with tenant_context("km"):
        assert db.session.get(Note, NOTE) is None
    assert kept
    with pytest.raises(NotBound):
        db.session.get(Note, NOTE)


@pytest.mark.parametrize(
    "load",
    [
        lambda _, shelf: shelf.text,
        lambda db, shelf: db.session.refresh(shelf),
        lambda _, shelf: shelf.books,
        lambda db, shelf: db.session.merge(shelf),
        lambda db, shelf: db.session.merge_all([shelf]),
        lambda db, shelf: db.session.get(Shelf, "A", identity_token=sa.inspect(shelf).identity_token),
        lambda db, shelf: db.session.scalar(
            sa.select(Shelf), execution_options={"identity_token": sa.inspect(shelf).identity_token}
        ),
        lambda db, shelf: db.session.scalar(
            sa.select(Shelf).execution_options(identity_token=sa.inspect(shelf).identity_token)
        ),
    ],
    ids=["expired", "refresh", "lazy list", "merge", "merge_all", "token of get", "token option", "token of statement"],
)
def test_an_object_is_not_loaded_again_under_another_binding(
    db: TenantDatabase, of_eur: Callable[..., Any], load: Callable[[TenantDatabase, Shelf], Any]
) -> None:
    shelf = of_eur()
    for other in (tenant_context("km"), shared_side()):
        with other, pytest.raises(BindingChanged):
            load(db, shelf)
        db.session.rollback()
    with tenant_context("eur"):
        assert shelf.text == "eur"
        assert [book.text for book in shelf.books] == ["eur"] * 5


def test_a_lazy_load_under_another_tenant_is_refused_although_the_row_is_in_the_session(
    db: TenantDatabase, of_eur: Callable[..., Any]
) -> None:
    """Of a relationship whose object is found without SQL, and of a deferred column."""
    db.session().expire_on_commit = False
    book, shelf = of_eur(Book, 1), of_eur()
    with tenant_context("km"):
        own = db.session.get(Shelf, "A")
        for load in (lambda: book.shelf, lambda: book.blurb):
            with pytest.raises(BindingChanged):
                load()
        assert db.session.get_one(Book, 1).shelf is own
        assert db.session.get_one(Book, 1).blurb == "km"
        db.session.commit()
    with tenant_context("eur"):
        assert (book.shelf, book.blurb) == (shelf, "eur")


@pytest.mark.parametrize("streams", [True, False])
def test_a_result_is_read_under_its_own_tenant(db: TenantDatabase, streams: bool) -> None:
    """A streamed one also between two rows. Then it is closed: its next reader would miss rows without an error."""
    options = {"yield_per": 2} if streams else {}
    query = sa.select(Book).order_by(Book.id)
    with tenant_context("eur"):
        found = db.session.scalars(query, execution_options=options)
        pages = db.session.execute(query, execution_options=options)
        parts = pages.partitions(2)
        untouched = db.session.execute(sa.select(Book.text), execution_options=options)
        first = next(found) if streams else None
        with tenant_context("km"):
            for read in (lambda: next(found), lambda: next(parts), untouched.all):
                with pytest.raises(BindingChanged):
                    read()
        for result in (found, pages, untouched):
            with pytest.raises(sa.exc.ResourceClosedError):
                result.all()
        assert first is None or first.text == "eur"


def test_a_result_is_read_around_another_tenants_work(db: TenantDatabase) -> None:
    """The usual loop: the next row is asked for after the inner block."""
    seen = []
    with tenant_context("eur"):
        for text in db.session.scalars(sa.select(Book.text), execution_options={"yield_per": 2}):
            with tenant_context("km"):
                seen.append(text)
    assert seen == ["eur"] * 5


STREAMED = {
    "columns": (sa.select(Book.text), {"stream_results": True}),
    "text": (sa.text("SELECT text FROM books"), {"stream_results": True}),
    "table": (sa.select(sa.table("books", sa.column("text"))), {"yield_per": 2}),
}


@pytest.mark.parametrize("read", ["next", "fetchmany", "all", "partitions"])
@pytest.mark.parametrize("name", STREAMED)
def test_a_streamed_result_without_objects_is_read_under_its_own_tenant(
    db: TenantDatabase, name: str, read: str
) -> None:
    """Also one whose first row was read."""
    statement, options = STREAMED[name]
    with tenant_context("eur"):
        assert db.session.scalars(statement, execution_options=options).all() == ["eur"] * 5
        found = db.session.execute(statement, execution_options=options)
        assert next(found).text == "eur"
        reads = {"next": lambda: next(found), "fetchmany": lambda: found.fetchmany(2), "all": found.all}
        with tenant_context("km"), pytest.raises(BindingChanged):
            reads.get(read, lambda: next(found.partitions(2)))()
        with pytest.raises(sa.exc.ResourceClosedError):
            found.all()


# Writing.


@pytest.mark.parametrize("model", KEYS)
@pytest.mark.parametrize("expires", [True, False])
def test_a_change_is_not_written_to_the_next_tenants_row(
    db: TenantDatabase, library: Database, of_eur: Callable[..., Any], model: type[Any], expires: bool
) -> None:
    key = KEYS[model]
    db.session().expire_on_commit = expires
    changed = of_eur(model, key)
    with tenant_context("km"):
        changed.text = "written"
        for write in (db.session.flush, db.session.commit, lambda: db.session.get(model, key)):
            with pytest.raises(BindingChanged, match=model.__name__):
                write()
    assert texts(library, model) == {"eur": {"eur"}, "km": {"km"}}
    with tenant_context("eur"):
        db.session.commit()
    assert "written" in texts(library, model)["eur"]
    assert texts(library, model)["km"] == {"km"}


def test_an_object_added_under_one_tenant_is_not_written_under_another(db: TenantDatabase, library: Database) -> None:
    """Neither from the context nor after it, also if it is added again; expunged first, it is the next tenant's."""
    added = Shelf(code="C", text="added")
    with tenant_context("eur"):
        db.session.add(added)
        with tenant_context("km"):
            db.session.add(added)
            with pytest.raises(BindingChanged):
                db.session.commit()
    with shared_side(), pytest.raises(BindingChanged):
        db.session.flush()
    with tenant_context("km"):
        db.session.rollback()
        db.session.add(added)
        db.session.commit()
    assert texts(library) == {"eur": {"eur"}, "km": {"km", "added"}}


@pytest.mark.parametrize("write", ["bulk_save_objects", "merge"])
def test_an_object_added_under_one_tenant_is_not_copied_into_another(
    db: TenantDatabase, library: Database, write: str
) -> None:
    """By a bulk or by merge, which read an added object without a flush."""
    added = Shelf(code="C", text="added")
    with tenant_context("eur"):
        db.session.add(added)
    with tenant_context("km"):
        with pytest.raises(BindingChanged):
            getattr(db.session, write)([added] if write == "bulk_save_objects" else added)
        db.session.rollback()
        db.session.bulk_save_objects([added])  # In no session it is of no tenant.
        db.session.commit()
    assert texts(library) == {"eur": {"eur"}, "km": {"km", "added"}}


def test_a_delete_under_another_tenant_is_refused(
    db: TenantDatabase, library: Database, of_eur: Callable[..., Any]
) -> None:
    """Asked for under the other, or flushed there."""
    db.session().expire_on_commit = False
    note = of_eur(Note, NOTE)
    with tenant_context("km"):
        db.session.delete(note)
        with pytest.raises(BindingChanged):
            db.session.flush()
        db.session.rollback()
    with tenant_context("eur"):
        db.session.delete(note)
        with tenant_context("km"), pytest.raises(BindingChanged):
            db.session.commit()
    assert texts(library, Note) == {"eur": {"eur"}, "km": {"km"}}


def test_a_detached_object_joins_no_other_tenants_session(
    db: TenantDatabase, library: Database, of_eur: Callable[..., Any]
) -> None:
    """By add, merge or a bulk. A copy that says so (`make_transient`) is a new object."""
    db.session().expire_on_commit = False
    shelf = of_eur()
    shelf.text = "detached"
    db.session.expunge(shelf)
    with tenant_context("km"):
        for join in (
            lambda: db.session.add(shelf),
            lambda: db.session.merge(shelf),
            lambda: db.session.bulk_save_objects([shelf]),
        ):
            with pytest.raises(BindingChanged):
                join()
            db.session.expunge_all()
            db.session.rollback()
        make_transient(shelf)
        shelf.code = "D"
        db.session.add(shelf)
        db.session.commit()
    assert texts(library) == {"eur": {"eur"}, "km": {"km", "detached"}}


def test_a_cascade_takes_no_other_tenants_object(db: TenantDatabase, of_eur: Callable[..., Any]) -> None:
    """Of add or merge."""
    db.session().expire_on_commit = False
    shelf = of_eur()
    db.session.expunge(shelf)
    for join in (db.session.add, db.session.merge):
        with tenant_context("km"), pytest.raises(BindingChanged):
            join(Book(id=9, text="x", blurb="x", shelf=shelf))
        db.session.expunge_all()


def test_a_transient_object_merges_into_the_bound_tenants_row(db: TenantDatabase, library: Database) -> None:
    for slug in ("eur", "km"):
        with tenant_context(slug):
            db.session.merge(Shelf(code="A", text=f"{slug} merged"))
            db.session.commit()
    assert texts(library) == {"eur": {"eur", "eur merged"}, "km": {"km", "km merged"}}


def test_bulk_statements_touch_the_bound_tenants_objects_only(
    db: TenantDatabase, library: Database, of_eur: Callable[..., Any]
) -> None:
    """An ORM update by criteria or by key, an insert and a delete: the other tenant's object stays as it is."""
    db.session().expire_on_commit = False
    shelf = of_eur()
    with tenant_context("km"):
        own = db.session.get_one(Shelf, "A")
        db.session.execute(sa.update(Shelf).where(Shelf.code == "A").values(text="one"))
        assert (shelf.text, own.text) == ("eur", "one")
        db.session.execute(sa.update(Shelf), [{"code": "A", "text": "two"}])
        assert (shelf.text, own.text) == ("eur", "two")
        made = db.session.scalars(sa.insert(Shelf).returning(Shelf), [{"code": "E", "text": "made"}]).one()
        updated = db.session.scalar(sa.update(Shelf).where(Shelf.code == "A").values(text="three").returning(Shelf))
        assert updated is own
        assert sa.inspect(made).identity_token == sa.inspect(own).identity_token
        db.session.execute(sa.delete(Shelf).where(Shelf.code == "B"))
        db.session.bulk_update_mappings(sa.inspect(Shelf), [{"code": "A", "text": "four"}])
        db.session.commit()
    assert shelf in db.session
    assert texts(library) == {"eur": {"eur"}, "km": {"four", "made"}}


# Sessions and contexts.


@pytest.mark.parametrize("end", ["commit", "raise"])
def test_after_a_nested_context_the_outer_tenants_objects_are_whole(
    db: TenantDatabase, library: Database, of_eur: Callable[..., Any], end: str
) -> None:
    """The inner context commits or ends by an exception; inner objects are refused then."""
    shelf = of_eur()

    def work(context: AbstractContextManager[Any]) -> Any:
        with context:
            inner = db.session.get_one(Shelf, "A")
            inner.text = "inner"
            if end == "raise":
                raise ZeroDivisionError
            db.session.commit()
            return inner

    with tenant_context("eur"):
        if end == "raise":
            with pytest.raises(ZeroDivisionError):
                work(tenant_context("km"))
            db.session.rollback()
        else:
            inner = work(tenant_context("km"))
            with pytest.raises(BindingChanged):
                assert inner.text
        assert shelf.text == "eur"
        shelf.text = "outer"
        db.session.commit()
    assert texts(library) == {"eur": {"eur", "outer"}, "km": {"km"} if end == "raise" else {"km", "inner"}}


@pytest.mark.parametrize("scoped", [True, False])
def test_a_session_of_ones_own_guards_its_objects_too(db: TenantDatabase, scoped: bool) -> None:
    factory = db.session.session_factory
    made = scoped_session(factory)() if scoped else factory(expire_on_commit=False)
    with made as session:
        with tenant_context("eur"):
            shelf = session.get(Shelf, "A")
            session.commit()
        with tenant_context("km"):
            assert session.get(Shelf, "A").text == "km"
            session.rollback()
            shelf.text = "written"
            with pytest.raises(BindingChanged):
                session.flush()


def test_an_object_is_added_under_a_binding(db: TenantDatabase) -> None:
    with pytest.raises(NotBound):
        db.session.add(Shelf(code="F", text="x"))


def test_options_of_the_session_stay(db: TenantDatabase) -> None:
    """The token joins them."""
    with db.session.session_factory(execution_options={"note": 2}) as session, tenant_context("eur"):
        session.get(Shelf, "A")
        assert session.execution_options["note"] == 2
