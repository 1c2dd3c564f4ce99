"""The binding decides the database side of a session; a request is one unit of work, and leaves no binding."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from flask import Flask, abort, g, request
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenant_schemas.connections import Connections, Limits
from tenant_schemas.context import SHARED, current_binding, current_tenant
from tenant_schemas.errors import BindingChanged, BindingRefused, NotBound, TenantNotFound
from tenant_schemas.flask import (
    EXTENSION,
    PATH_SLUG,
    PathTenant,
    TenantDatabase,
    bind_request,
    connections,
    first_segments,
    shared_side,
    tenant_context,
)
from tenant_schemas.testing.plugin import Database
from tests.factories.api import Api
from tests.factories.people import People

WHO = sa.text("SELECT current_user::text")


class Model(DeclarativeBase):
    """Two tables of the application, with the columns that the tests need."""


class User(Model):
    """A row of the shared schema."""

    __tablename__ = "users"
    __table_args__ = ({"schema": "shared"},)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=sa.func.gen_random_uuid())
    email: Mapped[str]
    name: Mapped[str]


class Wallet(Model):
    """A row of the tenant's schema."""

    __tablename__ = "wallets"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]


@pytest.fixture
def own(database: Database) -> Iterator[Connections]:
    own = Connections(database.app_url, database.tenant_secret, Limits(max_connections=5, wait_seconds=1))
    yield own
    own.close()


@pytest.fixture
def db() -> TenantDatabase:
    return TenantDatabase()


@pytest.fixture
def small(own: Connections, db: TenantDatabase) -> Flask:
    """A small application with the engine only. The tests add routes."""
    small = Flask("small")
    db.init_tenancy(small, own)
    return small


@pytest.fixture
def inside(small: Flask) -> Iterator[Flask]:
    """Inside its application context."""
    with small.app_context():
        yield small


def who(db: TenantDatabase) -> str:
    return str(db.session.scalar(WHO))


def is_unbound() -> bool:
    try:
        current_binding()
    except NotBound:
        return True
    return False


# A session follows the binding.


@pytest.mark.usefixtures("inside")
def test_a_session_with_nothing_bound_never_reaches_postgresql(db: TenantDatabase, own: Connections) -> None:
    """Not for SQL, models, a new object or a connection."""
    attempts = (
        lambda: db.session.execute(WHO),
        lambda: db.session.scalar(sa.select(User)),
        lambda: db.session.get(User, uuid4()),
        lambda: db.session.add(User(email="x", name="x")),
        db.session.connection,
    )
    for attempt in attempts:
        with pytest.raises(NotBound):
            attempt()
        db.session.rollback()
    assert own.open_count == 0


@pytest.mark.usefixtures("inside")
def test_a_session_follows_the_binding_and_not_the_model(db: TenantDatabase) -> None:
    """A query of the shared model under a tenant is refused by PostgreSQL: the tenant's login may not read it."""
    for slug in ("eur", "km"):
        with tenant_context(slug):
            assert who(db) == f"tenant_{slug}"
            with pytest.raises(sa.exc.ProgrammingError, match="InsufficientPrivilege"):
                db.session.scalar(sa.select(User))
        db.session.remove()


@pytest.mark.usefixtures("inside")
def test_the_shared_side_is_asked_for_by_name(db: TenantDatabase) -> None:
    with shared_side():
        assert who(db) == "wallet_app"
    assert is_unbound()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("queries", [1, 2, 3])
def test_changing_the_tenant_inside_an_open_transaction_is_refused(db: TenantDatabase, queries: int) -> None:
    """From the first query on; and the db transaction is still the first tenant's."""
    with tenant_context("eur"):
        for _ in range(queries):
            assert who(db) == "tenant_eur"
        for other in (tenant_context("km"), shared_side()):
            with other, pytest.raises(BindingChanged):
                who(db)
        assert who(db) == "tenant_eur"


@pytest.mark.usefixtures("inside")
def test_changing_from_the_shared_side_inside_an_open_transaction_is_refused(db: TenantDatabase) -> None:
    with shared_side():
        assert who(db) == "wallet_app"
    with tenant_context("km"), pytest.raises(BindingChanged):
        who(db)


@pytest.mark.usefixtures("inside")
def test_changing_inside_a_savepoint_is_refused(db: TenantDatabase) -> None:
    with tenant_context("eur"):
        who(db)
        with db.session.begin_nested(), tenant_context("km"), pytest.raises(BindingChanged):
            who(db)


@pytest.mark.usefixtures("inside")
def test_a_flush_under_another_tenant_is_refused(db: TenantDatabase) -> None:
    """An object made under one tenant is not written under the next."""
    with shared_side():
        who(db)
        db.session.add(User(email=f"{uuid4().hex}@example.com", name="Test Person"))
    with tenant_context("eur"), pytest.raises(BindingChanged):
        db.session.flush()


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("end", ["commit", "rollback", "close", "remove"])
@pytest.mark.parametrize("queries", [1, 2, 3])
def test_after_a_transaction_has_ended_the_tenant_may_change(db: TenantDatabase, end: str, queries: int) -> None:
    for slug in ("eur", "km", "eur"):
        with tenant_context(slug):
            for _ in range(queries):
                assert who(db) == f"tenant_{slug}"
            getattr(db.session, end)()
    with shared_side():
        assert who(db) == "wallet_app"


@pytest.mark.usefixtures("inside")
def test_a_row_of_the_tenant_that_was_read_again_is_the_same_tenant(db: TenantDatabase, database: Database) -> None:
    """Its settings or revision may have changed meanwhile; the db transaction continues."""
    eur = database.tenant("eur")
    with tenant_context(eur):
        who(db)
    with tenant_context(replace(eur, revision="9999")):
        assert who(db) == "tenant_eur"


@pytest.mark.usefixtures("inside")
def test_a_unit_of_work_keeps_its_db_transaction_if_its_tenants_engine_is_replaced(
    db: TenantDatabase, own: Connections, database: Database
) -> None:
    """Otherwise it would hold two connections, and its commit would be two commits."""
    pid, eur = sa.text("SELECT pg_backend_pid(), pg_current_xact_id()::text"), database.tenant("eur")
    with tenant_context(eur):
        first = db.session.execute(pid).one()
        own.retire(eur.id)
        assert db.session.execute(pid).one() == first
    with tenant_context(replace(eur, settings={"other": 1})):
        assert db.session.execute(pid).one() == first
        db.session.commit()
        assert db.session.execute(pid).one() != first


@pytest.mark.usefixtures("inside")
def test_a_row_of_one_tenant_is_not_served_under_the_next(db: TenantDatabase, people: People) -> None:
    """The session caches rows by their key, not by their tenant; the cache ends with the db transaction."""
    person = people.make(eur="member", km="member")
    wallets = {slug: people.wallet(person, slug, balance_minor=100) for slug in ("eur", "km")}
    session = db.session
    for slug, other in (("eur", "km"), ("km", "eur"), ("eur", "km")):
        with tenant_context(slug):
            assert session.get(Wallet, wallets[slug])
            assert session.get(Wallet, wallets[other]) is None
            assert session.scalars(sa.select(Wallet.id).where(Wallet.user_id == person.user_id)).all() == [
                wallets[slug]
            ]
            for _ in range(2):
                session.scalar(WHO)
            session.commit()


@pytest.mark.usefixtures("inside")
def test_an_engine_of_ones_own_is_refused(db: TenantDatabase, own: Connections, database: Database) -> None:
    """In every way to pass it."""
    other = own.engine(database.tenant("km"))
    attempts = (
        lambda: db.session.execute(WHO, bind_arguments={"bind": other}),
        lambda: db.session.scalar(WHO, bind_arguments={"bind": other}),
        lambda: db.session.get(User, uuid4(), bind_arguments={"bind": other}),
        lambda: db.session.get_bind(bind=other),
    )
    with tenant_context("eur"):
        for attempt in attempts:
            with pytest.raises(BindingRefused):
                attempt()
            db.session.rollback()


@pytest.mark.usefixtures("inside")
def test_an_engine_of_ones_own_is_refused_for_a_sessions_connection_too(
    db: TenantDatabase, own: Connections, database: Database
) -> None:
    """`Session.connection` takes a bind without asking `get_bind`."""
    other = own.engine(database.tenant("km"))
    with tenant_context("eur"), pytest.raises(BindingRefused):
        db.session.connection(bind_arguments={"bind": other})


@pytest.mark.usefixtures("inside")
def test_an_engine_given_to_the_session_itself_is_not_used(
    db: TenantDatabase, own: Connections, database: Database
) -> None:
    session = db.session.session_factory(bind=own.engine(database.tenant("km")))
    with session, tenant_context("eur"):
        assert session.scalar(WHO) == "tenant_eur"
    with session, pytest.raises(NotBound):
        session.scalar(WHO)


@pytest.mark.usefixtures("inside")
def test_flask_sqlalchemys_own_engine_is_the_shared_side(db: TenantDatabase, own: Connections) -> None:
    assert db.engine is own.shared


# tenant_context outside requests.


@pytest.mark.usefixtures("inside")
def test_a_context_takes_a_slug_or_a_tenant_and_nests(database: Database) -> None:
    with tenant_context("eur") as eur:
        assert current_tenant() == eur == database.tenant("eur")
        with tenant_context(database.tenant("km")) as km:
            assert current_tenant() == km
            with shared_side():
                assert current_binding() is SHARED
            assert current_tenant() == km
        assert current_tenant() == eur
    assert is_unbound()


@pytest.mark.usefixtures("inside")
def test_a_context_is_left_on_an_exception() -> None:
    with tenant_context("eur") as eur:
        for context in (tenant_context("km"), shared_side()):
            with pytest.raises(ZeroDivisionError), context:
                raise ZeroDivisionError
            assert current_tenant() == eur
    assert is_unbound()


@pytest.mark.usefixtures("inside")
def test_a_context_of_nobody_is_refused_and_binds_nothing() -> None:
    for slug in ("unknown", "EUR", "", "eur'; --"):
        with pytest.raises(TenantNotFound), tenant_context(slug):
            pass
        assert is_unbound()


@pytest.mark.usefixtures("inside")
def test_a_decorated_job_looks_its_tenant_up_at_each_call(db: TenantDatabase) -> None:
    @tenant_context("km")
    def job() -> str:
        return who(db)

    for _ in range(2):
        assert job() == "tenant_km"
        assert is_unbound()
        db.session.rollback()


def test_a_thread_started_in_a_context_has_no_tenant(small: Flask, db: TenantDatabase) -> None:
    outcomes: list[Any] = []

    def work() -> None:
        with small.app_context():
            try:
                outcomes.append(who(db))
            except NotBound as error:
                outcomes.append(error)

    with small.app_context(), tenant_context("eur"):
        thread = Thread(target=work)
        thread.start()
        thread.join()
        assert who(db) == "tenant_eur"
    assert [type(outcome) for outcome in outcomes] == [NotBound]


# A request is one unit of work.


@pytest.fixture
def requests(small: Flask, db: TenantDatabase, database: Database) -> Flask:
    """Routes that write a user with this address and then end in different ways."""

    @small.before_request
    def bind() -> None:
        bind_request(SHARED)

    @small.post("/<end>/<email>")
    def write(end: str, email: str) -> Any:
        db.session.add(User(email=email, name="Test Person"))
        db.session.flush()
        if end == "raise":
            raise ZeroDivisionError
        if end == "abort":
            abort(409)
        if end == "break":
            db.session.execute(sa.text("SELECT 1 / 0"))
        return {}, int(end)

    @small.get("/tenant/<slug>")
    def show(slug: str) -> Any:
        bind_request(database.tenant(slug))
        return {"who": who(db)}

    @small.get("/fail/<slug>")
    def fail(slug: str) -> Any:
        bind_request(database.tenant(slug))
        bind_request(database.tenant("km"))
        who(db)
        raise ZeroDivisionError

    return small


def was_written(database: Database, email: str) -> bool:
    query = "SELECT count(*) FROM shared.users WHERE email = %s"
    return database.as_superuser().execute(query, (email,)).fetchone() == (1,)


@pytest.mark.parametrize(
    ("end", "status", "written"),
    [
        ("200", 200, True),
        ("201", 201, True),
        ("303", 303, True),
        ("400", 400, False),
        ("404", 404, False),
        ("409", 409, False),
        ("503", 503, False),
        ("abort", 409, False),
        ("raise", 500, False),
        ("break", 500, False),
    ],
)
def test_a_good_request_commits_and_a_failed_one_rolls_back(
    requests: Flask, database: Database, end: str, status: int, written: bool
) -> None:
    email = f"{uuid4().hex}@example.com"
    assert requests.test_client().post(f"/{end}/{email}").status_code == status
    assert was_written(database, email) is written


def test_a_request_that_raises_through_is_rolled_back_and_unbound(requests: Flask, database: Database) -> None:
    """As in tests and debuggers, where the exception becomes no response and no `after_request` runs."""
    requests.testing = True
    email = f"{uuid4().hex}@example.com"
    with pytest.raises(ZeroDivisionError):
        requests.test_client().post(f"/raise/{email}")
    assert not was_written(database, email)
    assert is_unbound()


def test_a_commit_that_fails_is_no_good_answer(small: Flask, db: TenantDatabase, database: Database) -> None:
    """The response is sent after the commit, so it can't promise a change that was not committed."""
    email = f"{uuid4().hex}@example.com"

    @small.post("/")
    def write() -> Any:
        bind_request(SHARED)
        for _ in range(2):
            db.session.add(User(email=email, name="Twice"))
        return {}

    assert small.test_client().post("/").status_code == 500
    assert not was_written(database, email)
    assert small.test_client().get("/nowhere").status_code == 404


def test_nothing_is_bound_after_a_request_also_if_it_raised(requests: Flask) -> None:
    client = requests.test_client()
    for slug in ("eur", "km"):
        assert client.get(f"/tenant/{slug}").json == {"who": f"tenant_{slug}"}
        assert is_unbound()
        assert client.get(f"/fail/{slug}").status_code == 500
        assert is_unbound()


def test_nothing_is_bound_while_the_next_request_begins(small: Flask, database: Database) -> None:
    """One thread, request after request, the first one raising: none inherits a binding."""
    seen: list[bool] = []

    @small.before_request
    def look() -> None:
        seen.append(is_unbound())

    @small.get("/<slug>")
    def fail(slug: str) -> Any:
        bind_request(database.tenant(slug))
        raise ZeroDivisionError

    for slug in ("eur", "km"):
        assert small.test_client().get(f"/{slug}").status_code == 500
    assert seen == [True, True]


def test_a_request_inside_a_context_gives_the_context_back(requests: Flask) -> None:
    with requests.app_context(), tenant_context("eur") as eur:
        assert requests.test_client().get("/tenant/km").json == {"who": "tenant_km"}
        assert current_tenant() == eur
    assert is_unbound()


def test_a_request_gives_its_connections_back(requests: Flask, own: Connections) -> None:
    """More requests than connections, half of them failing."""
    client = requests.test_client()
    for _ in range(4):
        for slug in ("eur", "km"):
            client.get(f"/tenant/{slug}")
            client.get(f"/fail/{slug}")
    assert own.open_count <= 3


def test_a_request_that_only_read_is_committed(small: Flask, db: TenantDatabase, own: Connections) -> None:
    """On a ROLLBACK psycopg would forget its prepared statements."""
    ends: list[str] = []
    sa.event.listen(own.shared, "commit", lambda _: ends.append("commit"))
    sa.event.listen(own.shared, "rollback", lambda _: ends.append("rollback"))

    @small.get("/")
    def read() -> Any:
        bind_request(SHARED)
        return {"who": who(db)}

    assert small.test_client().get("/").json == {"who": "wallet_app"}
    assert ends == ["commit"]


# The whole application.


def test_the_applications_connections_are_found_from_inside_it(app: Flask) -> None:
    with app.app_context():
        assert connections() is app.extensions[EXTENSION]


def test_after_requests_to_the_application_nothing_is_bound(api: Api, people: People) -> None:
    person = people.make(eur="member", km="member")
    for slug in ("eur", "km", "unknown"):
        api.get("/api/wallet", person, slug)
        assert is_unbound()


# The tenant in the path.


def rewritten(path: str, prefix: str = "/api/", reserved: frozenset[str] = frozenset({"wallet", "admin"})) -> tuple:
    """(PATH_INFO, slug) as the application behind the middleware gets them."""
    seen: dict[str, Any] = {}

    def behind(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        return []

    PathTenant(behind, prefix, reserved)({"PATH_INFO": path}, None)  # type: ignore[arg-type]
    return seen["PATH_INFO"], seen.get(PATH_SLUG)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/eur/wallet", ("/api/wallet", "eur")),
        ("/api/eur/wallet/transactions/1", ("/api/wallet/transactions/1", "eur")),
        ("/api/eur/admin/wallets", ("/api/admin/wallets", "eur")),
        ("/api/eur/", ("/api/", "eur")),
        ("/api/eur", ("/api/", "eur")),
        ("/api/eur/km/wallet", ("/api/km/wallet", "eur")),
        ("/api/wallets/1", ("/api/1", "wallets")),
        ("/api/wallet", ("/api/wallet", None)),
        ("/api/wallet/eur", ("/api/wallet/eur", None)),
        ("/api/admin/wallets", ("/api/admin/wallets", None)),
        ("/api/", ("/api/", None)),
        ("/api", ("/api", None)),
        ("/api//wallet", ("/api//wallet", None)),
        ("/apis/eur/wallet", ("/apis/eur/wallet", None)),
        ("/livez", ("/livez", None)),
        ("/eur/api/wallet", ("/eur/api/wallet", None)),
        ("", ("", None)),
    ],
)
def test_the_first_segment_below_the_prefix_is_the_tenant_unless_it_is_reserved(
    path: str, expected: tuple[str, str | None]
) -> None:
    assert rewritten(path) == expected


def test_the_path_with_the_tenant_reaches_the_very_same_view(small: Flask) -> None:
    """One rule, one endpoint; for the view the only difference is the note in the environment."""

    @small.get("/api/wallet/<int:number>")
    def show(number: int) -> Any:
        return {"endpoint": request.endpoint, "path": request.path, "number": number, "query": request.args["q"]}

    small.wsgi_app = PathTenant(small.wsgi_app, "/api/", first_segments(small, "/api/"))  # type: ignore[method-assign]
    client = small.test_client()
    plain, named = client.get("/api/wallet/7?q=x"), client.get("/api/eur/wallet/7?q=x")
    assert plain.status_code == 200
    assert plain.json == named.json
    assert client.get("/api/eur/eur/wallet/7?q=x").status_code == 404


def test_both_paths_of_the_application_are_one_view(api: Api, people: People) -> None:
    person = people.make(eur="member", km="member")
    for slug in ("eur", "km"):
        by_header, by_path = api.get("/api/wallet", person, slug), api.get(f"/api/{slug}/wallet", person)
        assert by_header.status_code == 200
        assert by_header.json == by_path.json


def test_a_header_can_not_write_the_note_that_the_middleware_leaves(api: Api, people: People) -> None:
    """A client's headers are in the environment as HTTP_…, never under that name."""
    person = people.make(eur="member")
    for name in (PATH_SLUG, PATH_SLUG.replace(".", "_")):
        assert api.get("/api/wallet", person, headers={name: "eur"}).json["code"] == "tenant_required"


def test_the_first_segments_are_those_of_all_rules_below_the_prefix(small: Flask) -> None:
    for rule in ("/api/wallet", "/api/admin/wallets/<uuid:x>", "/api/me/", "/health/x", "/apis/y"):
        small.add_url_rule(rule, rule, lambda: "")
    assert first_segments(small, "/api/") == {"wallet", "admin", "me"}


@pytest.mark.usefixtures("inside")
def test_bind_request_outside_a_request_is_refused(database: Database) -> None:
    """As in a job: nothing would end the binding, and the process's next job would run as the last tenant."""
    for slug in ("eur", "km"):
        with pytest.raises(BindingRefused, match="tenant_context"):
            bind_request(database.tenant(slug))
        assert is_unbound()


def test_a_request_may_be_bound_twice_and_is_unbound_wholly(small: Flask, database: Database) -> None:
    """As when the access check binds the shared side and the view then a tenant."""

    @small.get("/")
    def view() -> Any:
        bind_request(SHARED)
        bind_request(database.tenant("eur"))
        return {"tokens": len(g.get("_tenant_schemas_tokens", ())), "slug": current_tenant().slug}

    assert small.test_client().get("/").json == {"tokens": 2, "slug": "eur"}
    assert is_unbound()
