"""The binding belongs to one thread, is restored whatever happens, and never exists by default."""

from collections.abc import Callable, Iterator
from threading import Barrier, Thread

import pytest

from tenant_schemas.connections import Connections, Limits
from tenant_schemas.context import SHARED, Binding, bind, bound, current_binding, current_tenant, unbind
from tenant_schemas.errors import NotBound
from tenant_schemas.tenant import Tenant
from tenant_schemas.testing.plugin import Database

ROUNDS = 20


@pytest.fixture(scope="module")
def eur(database: Database) -> Tenant:
    return database.tenant("eur")


@pytest.fixture(scope="module")
def km(database: Database) -> Tenant:
    return database.tenant("km")


@pytest.fixture
def connections(database: Database) -> Iterator[Connections]:
    connections = Connections(database.app_url, database.tenant_secret, Limits(max_connections=6))
    yield connections
    connections.close()


def in_thread(work: Callable[[], object]) -> BaseException | None:
    """Run `work` in its own thread; returns its exception."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  It is handed to the test.
            raised.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def is_unbound() -> bool:
    try:
        current_binding()
    except NotBound:
        return True
    return False


def test_nothing_is_bound_by_default() -> None:
    with pytest.raises(NotBound, match="tenant_context"):
        current_binding()
    with pytest.raises(NotBound):
        current_tenant()


def test_the_shared_side_is_bound_by_name_and_is_no_tenant() -> None:
    with bound(SHARED):
        assert current_binding() is SHARED
        with pytest.raises(NotBound, match="needs a tenant"):
            current_tenant()
    assert is_unbound()


def test_blocks_nest_and_each_gives_back_what_was_bound(eur: Tenant, km: Tenant) -> None:
    with bound(eur):
        with bound(km), bound(SHARED):
            assert current_binding() is SHARED
        assert current_tenant() == eur
        with bound(km):
            assert current_tenant() == km
        assert current_tenant() == eur
    assert is_unbound()


def test_an_exception_inside_gives_back_what_was_bound(eur: Tenant, km: Tenant) -> None:
    with bound(eur):
        with pytest.raises(ZeroDivisionError), bound(km):
            raise ZeroDivisionError
        assert current_tenant() == eur
    with pytest.raises(KeyboardInterrupt), bound(km):
        raise KeyboardInterrupt
    assert is_unbound()


def test_an_unbinding_gives_back_what_was_bound_without_a_block(eur: Tenant, km: Tenant) -> None:
    outer = bind(eur)
    inner = bind(km)
    assert current_tenant() == km
    unbind(inner)
    assert current_tenant() == eur
    unbind(outer)
    assert is_unbound()


def test_a_thread_started_inside_a_block_is_unbound(eur: Tenant) -> None:
    with bound(eur):
        assert isinstance(in_thread(current_binding), NotBound)
        assert current_tenant() == eur


def test_what_a_thread_binds_is_not_bound_in_its_starter(eur: Tenant, km: Tenant) -> None:
    def bind_and_leave() -> None:
        bind(km)

    with bound(eur):
        assert in_thread(bind_and_leave) is None
        assert current_tenant() == eur


def test_overlapping_blocks_of_two_threads_never_swap(connections: Connections, eur: Tenant, km: Tenant) -> None:
    """At every check both threads are inside their block, and PostgreSQL reports their roles."""
    together = Barrier(2, timeout=10)

    def work(binding: Tenant) -> None:
        for _ in range(ROUNDS):
            with bound(binding):
                together.wait()
                assert current_tenant() == binding
                with connections.for_binding(current_binding()).begin() as connection:
                    together.wait()
                    row = connection.exec_driver_sql("SELECT current_user, current_schema()").one()
                assert tuple(row) == (binding.role_name, binding.schema_name)
            assert is_unbound()

    failures: list[BaseException | None] = []
    other = Thread(target=lambda: failures.append(in_thread(lambda: work(km))))
    other.start()
    work(eur)
    other.join()
    assert failures == [None]


def test_as_a_decorator_it_binds_afresh_at_each_call(eur: Tenant, km: Tenant) -> None:
    seen: list[Binding] = []

    @bound(eur)
    def look(again: bool) -> None:
        seen.append(current_binding())
        if again:
            with bound(km):
                look(again=False)
                seen.append(current_binding())

    look(again=True)
    assert is_unbound()
    look(again=False)
    assert seen == [eur, eur, km, eur]
    assert is_unbound()


def test_a_decorated_function_that_raises_is_unbound_after(eur: Tenant) -> None:
    @bound(eur)
    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert is_unbound()
