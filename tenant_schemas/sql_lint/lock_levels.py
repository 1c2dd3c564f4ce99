"""Which tables a revision's SQL locks, and in which mode, by PostgreSQL's documentation (13.3, and the page of each
command).

It reads the SQL, not a server. A statement that it can't read is reported as unknown. Tables that the revision itself
creates are left out: no other session can wait for them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tenant_schemas.sql_lint.lexer import Reader, Token, statements_of, tokens_of
from tenant_schemas.sql_lint.schema_model import (
    SchemaModel,
    foreign_key,
    model_after,
    table_and_actions,
    table_and_elements,
)


class LockMode(IntEnum):
    """PostgreSQL's lock modes, weakest first. SHARE and stronger block writers, ACCESS EXCLUSIVE readers too."""

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8
    UNKNOWN = 9

    def __str__(self) -> str:
        return "unknown" if self is LockMode.UNKNOWN else self.name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Lock:
    """The strongest lock on one table, and the first statement that takes it. With an unknown mode `table` may be a
    description, or empty.
    """

    table: str
    mode: LockMode
    statement: str


Locks = Iterator[tuple[str, LockMode]]
UNKNOWN: Final = ("", LockMode.UNKNOWN)
_DEPENDENT_OBJECTS: Final = ("objects that depend on it", LockMode.UNKNOWN)

# These lock no existing table.
_LOCKLESS: Final = frozenset({"grant", "revoke", "set", "reset", "security"})
_LOCKLESS_TO_CREATE: Final = frozenset(
    {"aggregate", "cast", "collation", "domain", "function", "materialized", "operator", "procedure", "schema"}
    | {"sequence", "text", "type", "view"}
)
_LOCKLESS_TO_ALTER: Final = frozenset(
    {"aggregate", "collation", "default", "function", "operator", "procedure", "routine", "schema", "text"}
)
_LOCKLESS_TO_DROP: Final = frozenset(
    {"aggregate", "cast", "collation", "domain", "function", "operator", "procedure", "routine", "text", "type"}
)
# The actions of ALTER TABLE with a weaker lock; all others take ACCESS EXCLUSIVE.
_WEAKER_ACTIONS: Final = {
    ("validate", "constraint"): LockMode.SHARE_UPDATE_EXCLUSIVE,
    ("cluster", "on"): LockMode.SHARE_UPDATE_EXCLUSIVE,
    ("set", "without", "cluster"): LockMode.SHARE_UPDATE_EXCLUSIVE,
    ("attach", "partition"): LockMode.SHARE_UPDATE_EXCLUSIVE,
    ("enable", "trigger"): LockMode.SHARE_ROW_EXCLUSIVE,
    ("enable", "always", "trigger"): LockMode.SHARE_ROW_EXCLUSIVE,
    ("enable", "replica", "trigger"): LockMode.SHARE_ROW_EXCLUSIVE,
    ("disable", "trigger"): LockMode.SHARE_ROW_EXCLUSIVE,
    ("add", "foreign", "key"): LockMode.SHARE_ROW_EXCLUSIVE,
}


def locks_of(sql: str, before: str = "") -> tuple[Lock, ...]:
    """The locks on existing tables, strongest first. `before` is the SQL of all earlier revisions: it says to which
    table an index belongs and which tables a foreign key connects.
    """
    model = model_after(before)
    earlier = frozenset(model.relations)
    found: dict[str, Lock] = {}
    for statement in statements_of(sql):
        for table, mode in _locks(statement.tokens, model):
            key = statement.summary if mode is LockMode.UNKNOWN else table
            is_created_here = table in model.relations and table not in earlier
            if not is_created_here and (key not in found or mode > found[key].mode):
                found[key] = Lock(table, mode, statement.summary)
        model.apply(statement)
    return tuple(sorted(found.values(), key=lambda lock: (-lock.mode, lock.table)))


def _locks(tokens: Sequence[Token], model: SchemaModel) -> Locks:
    reader = Reader(tokens)
    verb = reader.word()
    if verb in _LOCKS_BY_COMMAND:
        yield from _LOCKS_BY_COMMAND[verb](reader, model)
    elif verb not in _LOCKLESS and not (verb == "do" and _grants_only(tokens)):
        yield UNKNOWN


def _create(reader: Reader, _: SchemaModel) -> Locks:
    replaces = reader.take("or", "replace")
    reader.skip("unique", "temp", "temporary", "unlogged", "constraint", "recursive")
    kind = reader.word()
    if kind == "table":
        yield from _create_table(reader)
    elif kind == "index":
        yield _create_index(reader)
    elif kind in ("trigger", "policy") and reader.skip_past("on"):
        yield reader.name(), LockMode.SHARE_ROW_EXCLUSIVE if kind == "trigger" else LockMode.ACCESS_EXCLUSIVE
    elif kind == "rule" and reader.skip_past("to"):
        yield reader.name(), LockMode.ACCESS_EXCLUSIVE
    elif kind == "statistics" and reader.skip_past("from"):
        yield reader.name(), LockMode.SHARE_UPDATE_EXCLUSIVE
    elif kind == "view" and replaces:
        yield reader.name(), LockMode.ACCESS_EXCLUSIVE
    elif kind not in _LOCKLESS_TO_CREATE:
        yield UNKNOWN


def _create_table(reader: Reader) -> Locks:
    table, elements = table_and_elements(reader)
    for element in elements:
        if key := foreign_key(table, element):
            yield key.referenced, LockMode.SHARE_ROW_EXCLUSIVE
    if reader.take("partition", "of"):
        yield reader.name(), LockMode.ACCESS_EXCLUSIVE
    elif reader.skip_past("inherits", "("):
        for parent in reader.names():
            yield parent, LockMode.SHARE_UPDATE_EXCLUSIVE


def _create_index(reader: Reader) -> tuple[str, LockMode]:
    mode = LockMode.SHARE_UPDATE_EXCLUSIVE if reader.take("concurrently") else LockMode.SHARE
    reader.skip_past("on")
    reader.skip("only")
    return reader.name(), mode


def _alter(reader: Reader, model: SchemaModel) -> Locks:
    reader.skip("materialized")
    kind = reader.word()
    if kind == "table":
        table, actions = table_and_actions(reader)
        for action in actions:
            yield table, _mode_of_action(action)
            yield from _locks_on_other_tables(table, action, model)
    elif kind in ("policy", "trigger") and reader.skip_past("on"):
        yield reader.name(), LockMode.ACCESS_EXCLUSIVE
    elif kind in ("view", "sequence"):
        reader.take("if", "exists")
        yield reader.name(), LockMode.ACCESS_EXCLUSIVE if kind == "view" else LockMode.SHARE_ROW_EXCLUSIVE
    elif kind not in _LOCKLESS_TO_ALTER:
        yield UNKNOWN


def _mode_of_action(action: Sequence[Token]) -> LockMode:
    reader = Reader(action)
    for words, mode in _WEAKER_ACTIONS.items():
        if reader.take(*words):
            return mode
    if reader.take("add", "constraint"):
        reader.name()
        return LockMode.SHARE_ROW_EXCLUSIVE if reader.take("foreign", "key") else LockMode.ACCESS_EXCLUSIVE
    if reader.take("alter"):
        reader.skip("column")
        reader.name()
        is_weaker = any(reader.take(*words) for words in (("set", "statistics"), ("set", "("), ("reset", "(")))
    else:
        is_weaker = any(reader.take(word, "(") for word in ("set", "reset")) and not reader.take("user_catalog_table")
    return LockMode.SHARE_UPDATE_EXCLUSIVE if is_weaker else LockMode.ACCESS_EXCLUSIVE


def _locks_on_other_tables(table: str, action: Sequence[Token], model: SchemaModel) -> Locks:
    """The other tables that an action locks: the tables of its foreign keys, parents and partitions."""
    if key := foreign_key(table, action):
        yield key.referenced, LockMode.SHARE_ROW_EXCLUSIVE
    reader = Reader(action)
    if reader.take("drop", "constraint"):
        reader.take("if", "exists")
        yield from _locks_on_referenced_tables(table, model, name=reader.name())
    elif reader.take("drop"):
        reader.skip("column")
        reader.take("if", "exists")
        yield from _locks_on_referenced_tables(table, model, column=reader.name())
    elif reader.take("alter"):
        reader.skip("column")
        column = reader.name()
        if reader.take("type") or reader.take("set", "data", "type"):
            yield from _locks_on_referenced_tables(table, model, column=column)
            yield from ((key.table, LockMode.ACCESS_EXCLUSIVE) for key in model.foreign_keys_to(table))
    elif reader.take("attach", "partition") or reader.take("detach", "partition"):
        yield reader.name(), LockMode.ACCESS_EXCLUSIVE
    elif reader.take("inherit"):
        yield reader.name(), LockMode.SHARE_UPDATE_EXCLUSIVE
    if reader.skip_past("cascade"):
        yield _DEPENDENT_OBJECTS


def _locks_on_referenced_tables(table: str, model: SchemaModel, *, name: str = "", column: str = "") -> Locks:
    for key in model.foreign_keys_of(table):
        if key.name == name or column in key.columns:
            yield key.referenced, LockMode.ACCESS_EXCLUSIVE


def _drop(reader: Reader, model: SchemaModel) -> Locks:
    reader.skip("materialized")
    kind = reader.word()
    mode = LockMode.SHARE_UPDATE_EXCLUSIVE if reader.take("concurrently") else LockMode.ACCESS_EXCLUSIVE
    reader.take("if", "exists")
    if kind in ("policy", "rule", "trigger") and reader.skip_past("on"):
        yield reader.name(), mode
    elif kind == "index":
        yield from ((model.table_of_index(index), mode) for index in reader.names())
    elif kind in ("table", "view", "sequence"):
        for relation in reader.names():
            yield relation, mode
            yield from ((key.referenced, mode) for key in model.foreign_keys_of(relation))
    elif kind not in _LOCKLESS_TO_DROP:
        yield UNKNOWN
    if reader.skip_past("cascade"):
        yield _DEPENDENT_OBJECTS


def _truncate(reader: Reader, model: SchemaModel) -> Locks:
    reader.take("table")
    reader.take("only")
    tables = reader.names()
    yield from ((table, LockMode.ACCESS_EXCLUSIVE) for table in tables)
    if reader.skip_past("cascade"):
        yield from ((key.table, LockMode.ACCESS_EXCLUSIVE) for table in tables for key in model.foreign_keys_to(table))
        yield _DEPENDENT_OBJECTS


def _lock(reader: Reader, _: SchemaModel) -> Locks:
    reader.take("table")
    reader.take("only")
    tables = reader.names()
    words = " ".join(token.text for token in reader.rest)
    named = [mode for mode in LockMode if words.startswith(f"in {str(mode).lower()} mode")]
    yield from ((table, named[0] if named else LockMode.ACCESS_EXCLUSIVE) for table in tables)


def _write(reader: Reader, _: SchemaModel) -> Locks:
    reader.take_one_of("into", "from")
    reader.take("only")
    yield reader.name(), LockMode.ROW_EXCLUSIVE


def _comment(reader: Reader, _: SchemaModel) -> Locks:
    reader.take("on")
    reader.skip("materialized")
    kind = reader.word()
    if kind in ("table", "view", "column"):
        name = reader.name()
        yield name.rpartition(".")[0] if kind == "column" else name, LockMode.SHARE_UPDATE_EXCLUSIVE


def _refresh(reader: Reader, _: SchemaModel) -> Locks:
    reader.take("materialized", "view")
    mode = LockMode.EXCLUSIVE if reader.take("concurrently") else LockMode.ACCESS_EXCLUSIVE
    yield reader.name(), mode


def _analyze(reader: Reader, _: SchemaModel) -> Locks:
    reader.take("verbose")
    yield from ((table, LockMode.SHARE_UPDATE_EXCLUSIVE) for table in reader.names()) if reader.rest else [UNKNOWN]


def _grants_only(tokens: Sequence[Token]) -> bool:
    """Whether a DO block only EXECUTEs grants."""
    body = next((token.text for token in tokens if token.kind == "string"), "")
    reader = Reader([token for token in tokens_of(body) if not token.is_any("format", "(")])
    executed = 0
    while reader.skip_past("execute"):
        executed += 1
        if reader.word().split()[:1] not in (["GRANT"], ["REVOKE"]):
            return False
    does_more = any(token.is_any(*_LOCKS_BY_COMMAND, "perform", "call", "do", "select") for token in tokens_of(body))
    return executed > 0 and not does_more


_LOCKS_BY_COMMAND: Final = {
    "alter": _alter,
    "analyze": _analyze,
    "comment": _comment,
    "create": _create,
    "delete": _write,
    "drop": _drop,
    "insert": _write,
    "lock": _lock,
    "merge": _write,
    "refresh": _refresh,
    "truncate": _truncate,
    "update": _write,
}
