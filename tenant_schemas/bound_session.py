"""A SQLAlchemy session whose objects belong to the binding under which they were loaded or added.

SQLAlchemy's identity map has one entry for a class and a key, and two tenants can have rows with the same key. So each
object here has the binding's token in its identity (SQLAlchemy's `identity_token`), and is neither returned, refreshed
nor written under another binding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, NoReturn, cast

from sqlalchemy import ChunkedIteratorResult, CursorResult, event
from sqlalchemy.engine.cursor import BufferedRowCursorFetchStrategy, ResultFetchStrategy
from sqlalchemy.orm import InstanceState, Mapper, PassiveFlag, Session, attributes
from sqlalchemy.orm.context import QueryContext
from sqlalchemy.util import immutabledict

from tenant_schemas.context import Binding, current_binding
from tenant_schemas.errors import BindingChanged
from tenant_schemas.tenant import Tenant

Token = int | str
Chunks = Callable[[int | None], Iterator[Iterable[Any]]]

IDENTITY: Final = "identity_token"  # SQLAlchemy's name of the execution option
LOAD_OPTIONS: Final = "_sa_orm_load_options"


class BoundSession(Session):
    """Raises NotBound where no binding is, and BindingChanged for an object or a streamed result of another binding.

    An object stays usable under its own binding, also when another was bound in between. A result is streamed if its
    statement has `yield_per` or `stream_results`: the rows of all others were read when it was executed.
    """

    _binding: Binding | None = None
    _token: Token | None = None

    def token(self) -> Token:
        """The token of the current binding. Statements that follow load their objects with it."""
        binding = current_binding()
        if binding is not self._binding:
            self._binding, token = binding, _token_of(binding)
            if token != self._token:
                self._token = token
                # INSERT, UPDATE and DELETE with RETURNING read the token of the second option only.
                load = QueryContext.default_load_options + {f"_{IDENTITY}": token}
                options = immutabledict(self.execution_options)
                self.execution_options = options.union({IDENTITY: token, LOAD_OPTIONS: load})
        return cast(Token, self._token)

    def _execute_internal(self, statement: Any, params: Any = None, **more: Any) -> Any:
        """All ways to execute come here: `execute`, `scalar`, `scalars`, `get`, queries, and SQLAlchemy's own loads."""
        token = self.token()
        if options := more.get("execution_options"):
            _refuse_token(options.get(IDENTITY), token)
            if load := options.get(LOAD_OPTIONS):  # The load of an attribute or of an object that is in the session.
                _refuse_token(load._identity_token, token)
                if load._lazy_loaded_from:
                    _refuse_object(load._lazy_loaded_from, token)
        if options := getattr(statement, "_execution_options", None):
            _refuse_token(options.get(IDENTITY), token)
        result = super()._execute_internal(statement, params, **more)
        if isinstance(result, ChunkedIteratorResult):
            return _refusing_result(self, result, token)
        if _is_streamed(result):
            result.cursor_strategy = _BoundFetch(self, token, result.cursor_strategy)
        return result

    def _identity_lookup(  # noqa: PLR0917
        self,
        mapper: Mapper[Any],
        primary_key_identity: Any,
        identity_token: Any = None,
        passive: PassiveFlag = PassiveFlag.PASSIVE_OFF,
        lazy_loaded_from: InstanceState[Any] | None = None,
        execution_options: Any = immutabledict(),  # noqa: B008
        bind_arguments: Any = None,
    ) -> Any:
        """Also `get` and lazy loads come here before they send a statement."""
        token = self.token()
        _refuse_token(identity_token, token)
        if lazy_loaded_from:
            _refuse_object(lazy_loaded_from, token)
        return super()._identity_lookup(
            mapper, primary_key_identity, token, passive, lazy_loaded_from, execution_options, bind_arguments
        )

    def _merge(self, state: InstanceState[Any], *arguments: Any, **named: Any) -> Any:
        """Also the objects to which `merge` cascades come here."""
        if _has_binding(state):
            _refuse_object(state, self.token())
        return super()._merge(state, *arguments, **named)

    def _flush(self, objects: Sequence[object] | None = None) -> None:
        token = self.token()
        for state in chain(self._new, self._deleted, self._dirty_states):
            _refuse_object(state, token)
        super()._flush(objects)

    def _bulk_save_mappings(self, mapper: Any, mappings: Any, *arguments: Any, **named: Any) -> None:
        """`bulk_save_objects` gives the states of objects here, `bulk_update_mappings` dictionaries."""
        token, found = self.token(), list(mappings)
        for state in found:
            if isinstance(state, InstanceState) and _has_binding(state):
                _refuse_object(state, token)
        super()._bulk_save_mappings(mapper, found, *arguments, **named)


@event.listens_for(BoundSession, "before_attach", propagate=True)
def _give_token(session: BoundSession, instance: object) -> None:
    """A new object belongs to the binding under which it is added. An object with an identity keeps its own."""
    state = attributes.instance_state(instance)
    if state.key is None:
        state.identity_token = session.token()
    else:
        _refuse_object(state, session.token())


def _token_of(binding: Binding) -> Token:
    # Not the UUID itself: its hash is a Python function, and the identity map hashes the token with each key.
    return binding.id.int if isinstance(binding, Tenant) else binding.value


def _refuse_token(other: Token | None, token: Token) -> None:
    if other not in (None, token):
        raise BindingChanged("The statement loads objects of another binding: enter its `tenant_context(...)`.")


def _has_binding(state: InstanceState[Any]) -> bool:
    """Whether the object was loaded, or was added to a session. An expunged new object belongs to no binding."""
    return state.key is not None or state.session is not None


def _refuse_object(state: InstanceState[Any], token: Token) -> None:
    if state.identity_token != token:
        raise BindingChanged(
            f"This {state.class_.__name__} was loaded or added under another binding. Use it inside its own"
            " `tenant_context(...)`, load it again under this one, or remove it from the session by `expunge`."
        )


def _is_streamed(result: Any) -> bool:
    return isinstance(result, CursorResult) and isinstance(result.cursor_strategy, BufferedRowCursorFetchStrategy)


def _refuse_result(session: BoundSession, result: Any, token: Token) -> None:
    if session.token() != token:
        result.close()  # Otherwise the next reader would miss the rows of this one, without an error.
        raise BindingChanged("This result is of another binding, and is closed: read it before you bind the next.")


def _refusing_result(session: BoundSession, result: ChunkedIteratorResult[Any], token: Token) -> Any:
    """The result, whose rows can be read under its own binding only. Rows that it has read stay with their reader."""
    chunks, is_streamed = cast(Chunks, result.chunks), _is_streamed(result.raw)

    def bound_rows(rows: Iterable[Any]) -> Iterator[Any]:
        for row in rows:
            _refuse_result(session, result, token)
            yield row

    def bound_chunks(size: int | None) -> Iterator[Iterable[Any]]:
        found = chunks(size)
        _refuse_result(session, result, token)
        for rows in found:
            # A streamed result reads a chunk before its rows are asked for.
            yield bound_rows(rows) if size or is_streamed else rows
            _refuse_result(session, result, token)

    result.chunks = bound_chunks  # type: ignore[assignment]
    result.iterator = chain.from_iterable(bound_chunks(result._yield_per))
    return result


class _BoundFetch(ResultFetchStrategy):
    """Fetches the rows of a streamed result of plain columns, under its own binding only."""

    __slots__ = ("_session", "_strategy", "_token")

    def __init__(self, session: BoundSession, token: Token, strategy: ResultFetchStrategy) -> None:
        self._session, self._token, self._strategy = session, token, strategy

    def soft_close(self, result: Any, dbapi_cursor: Any) -> None:
        self._strategy.soft_close(result, dbapi_cursor)

    def hard_close(self, result: Any, dbapi_cursor: Any) -> None:
        self._strategy.hard_close(result, dbapi_cursor)

    def yield_per(self, result: Any, dbapi_cursor: Any, num: int) -> None:
        self._strategy.yield_per(result, dbapi_cursor, num)

    def fetchone(self, result: Any, dbapi_cursor: Any, hard_close: bool = False) -> Any:
        _refuse_result(self._session, result, self._token)
        return self._strategy.fetchone(result, dbapi_cursor, hard_close)

    def fetchmany(self, result: Any, dbapi_cursor: Any, size: int | None = None) -> Any:
        _refuse_result(self._session, result, self._token)
        return self._strategy.fetchmany(result, dbapi_cursor, size)

    def fetchall(self, result: Any, dbapi_cursor: Any) -> Any:
        _refuse_result(self._session, result, self._token)
        return self._strategy.fetchall(result, dbapi_cursor)

    def handle_exception(self, result: Any, dbapi_cursor: Any, err: BaseException) -> NoReturn:
        self._strategy.handle_exception(result, dbapi_cursor, err)
