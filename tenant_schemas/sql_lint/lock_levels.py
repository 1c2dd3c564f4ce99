"""Which tables a revision's SQL locks, and how, by PostgreSQL's documentation (13.3, and the page of each command).

It reads the SQL, not a server. What it can't read it calls unknown rather than pass it over in silence; what the
revision itself makes nobody else can wait for, so that is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tenant_schemas.sql_lint.lexer import Reader, Token, statements_of, tokens_of
from tenant_schemas.sql_lint.schema_model import Known, foreign_key, known_after, table_and_actions, table_and_elements


class Mode(IntEnum):
    """PostgreSQL's modes, weakest first. From SHARE on writers wait; readers wait for ACCESS EXCLUSIVE alone."""

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
        return "unknown" if self is Mode.UNKNOWN else self.name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Lock:
    """The strongest lock on one table, and the first statement that takes it. With an unknown mode `table` says what is
    known of it, or nothing.
    """

    table: str
    mode: Mode
    statement: str


Locks = Iterator[tuple[str, Mode]]
UNKNOWN: Final = ("", Mode.UNKNOWN)
_DEPENDANTS: Final = ("whatever depends on it", Mode.UNKNOWN)

# These lock no table that was there. What a statement writes to is another matter.
_HARMLESS: Final = frozenset({"grant", "revoke", "set", "reset", "security"})
_HARMLESS_TO_CREATE: Final = frozenset(
    {"aggregate", "cast", "collation", "domain", "function", "materialized", "operator", "procedure", "schema"}
    | {"sequence", "text", "type", "view"}
)
_HARMLESS_TO_ALTER: Final = frozenset(
    {"aggregate", "collation", "default", "function", "operator", "procedure", "routine", "schema", "text"}
)
_HARMLESS_TO_DROP: Final = frozenset(
    {"aggregate", "cast", "collation", "domain", "function", "operator", "procedure", "routine", "text", "type"}
)
# The gentle actions of ALTER TABLE; all others take ACCESS EXCLUSIVE.
_GENTLE_ACTIONS: Final = {
    ("validate", "constraint"): Mode.SHARE_UPDATE_EXCLUSIVE,
    ("cluster", "on"): Mode.SHARE_UPDATE_EXCLUSIVE,
    ("set", "without", "cluster"): Mode.SHARE_UPDATE_EXCLUSIVE,
    ("attach", "partition"): Mode.SHARE_UPDATE_EXCLUSIVE,
    ("enable", "trigger"): Mode.SHARE_ROW_EXCLUSIVE,
    ("enable", "always", "trigger"): Mode.SHARE_ROW_EXCLUSIVE,
    ("enable", "replica", "trigger"): Mode.SHARE_ROW_EXCLUSIVE,
    ("disable", "trigger"): Mode.SHARE_ROW_EXCLUSIVE,
    ("add", "foreign", "key"): Mode.SHARE_ROW_EXCLUSIVE,
}


def locks_of(sql: str, before: str = "") -> tuple[Lock, ...]:
    """The locks on tables that were there, strongest first. `before` is the SQL of the revisions before this one: it
    says whose an index is, and which tables a foreign key connects.
    """
    known = known_after(before)
    earlier = frozenset(known.relations)
    found: dict[str, Lock] = {}
    for statement in statements_of(sql):
        for table, mode in _locks(statement.tokens, known):
            key = statement.shown if mode is Mode.UNKNOWN else table
            is_made_here = table in known.relations and table not in earlier
            if not is_made_here and (key not in found or mode > found[key].mode):
                found[key] = Lock(table, mode, statement.shown)
        known.learn(statement)
    return tuple(sorted(found.values(), key=lambda lock: (-lock.mode, lock.table)))


def _locks(tokens: Sequence[Token], known: Known) -> Locks:
    reader = Reader(tokens)
    verb = reader.word()
    if verb in _READERS:
        yield from _READERS[verb](reader, known)
    elif verb not in _HARMLESS and not (verb == "do" and _grants_only(tokens)):
        yield UNKNOWN


def _create(reader: Reader, _: Known) -> Locks:
    replaces = reader.take("or", "replace")
    reader.skip("unique", "temp", "temporary", "unlogged", "constraint", "recursive")
    kind = reader.word()
    if kind == "table":
        yield from _create_table(reader)
    elif kind == "index":
        yield _index_made(reader)
    elif kind in ("trigger", "policy") and reader.skip_past("on"):
        yield reader.name(), Mode.SHARE_ROW_EXCLUSIVE if kind == "trigger" else Mode.ACCESS_EXCLUSIVE
    elif kind == "rule" and reader.skip_past("to"):
        yield reader.name(), Mode.ACCESS_EXCLUSIVE
    elif kind == "statistics" and reader.skip_past("from"):
        yield reader.name(), Mode.SHARE_UPDATE_EXCLUSIVE
    elif kind == "view" and replaces:
        yield reader.name(), Mode.ACCESS_EXCLUSIVE
    elif kind not in _HARMLESS_TO_CREATE:
        yield UNKNOWN


def _create_table(reader: Reader) -> Locks:
    table, elements = table_and_elements(reader)
    for element in elements:
        if key := foreign_key(table, element):
            yield key.referenced, Mode.SHARE_ROW_EXCLUSIVE
    if reader.take("partition", "of"):
        yield reader.name(), Mode.ACCESS_EXCLUSIVE
    elif reader.skip_past("inherits", "("):
        for parent in reader.names():
            yield parent, Mode.SHARE_UPDATE_EXCLUSIVE


def _index_made(reader: Reader) -> tuple[str, Mode]:
    mode = Mode.SHARE_UPDATE_EXCLUSIVE if reader.take("concurrently") else Mode.SHARE
    reader.skip_past("on")
    reader.skip("only")
    return reader.name(), mode


def _alter(reader: Reader, known: Known) -> Locks:
    reader.skip("materialized")
    kind = reader.word()
    if kind == "table":
        table, actions = table_and_actions(reader)
        for action in actions:
            yield table, _mode_of_action(action)
            yield from _neighbours(table, action, known)
    elif kind in ("policy", "trigger") and reader.skip_past("on"):
        yield reader.name(), Mode.ACCESS_EXCLUSIVE
    elif kind in ("view", "sequence"):
        reader.take("if", "exists")
        yield reader.name(), Mode.ACCESS_EXCLUSIVE if kind == "view" else Mode.SHARE_ROW_EXCLUSIVE
    elif kind not in _HARMLESS_TO_ALTER:
        yield UNKNOWN


def _mode_of_action(action: Sequence[Token]) -> Mode:
    reader = Reader(action)
    for words, mode in _GENTLE_ACTIONS.items():
        if reader.take(*words):
            return mode
    if reader.take("add", "constraint"):
        reader.name()
        return Mode.SHARE_ROW_EXCLUSIVE if reader.take("foreign", "key") else Mode.ACCESS_EXCLUSIVE
    if reader.take("alter"):
        reader.skip("column")
        reader.name()
        is_gentle = any(reader.take(*words) for words in (("set", "statistics"), ("set", "("), ("reset", "(")))
    else:
        is_gentle = any(reader.take(word, "(") for word in ("set", "reset")) and not reader.take("user_catalog_table")
    return Mode.SHARE_UPDATE_EXCLUSIVE if is_gentle else Mode.ACCESS_EXCLUSIVE


def _neighbours(table: str, action: Sequence[Token], known: Known) -> Locks:
    """The other tables that an action locks: those at the other end of a foreign key, and partitions."""
    if key := foreign_key(table, action):
        yield key.referenced, Mode.SHARE_ROW_EXCLUSIVE
    reader = Reader(action)
    if reader.take("drop", "constraint"):
        reader.take("if", "exists")
        yield from _other_ends(table, known, name=reader.name())
    elif reader.take("drop"):
        reader.skip("column")
        reader.take("if", "exists")
        yield from _other_ends(table, known, column=reader.name())
    elif reader.take("alter"):
        reader.skip("column")
        column = reader.name()
        if reader.take("type") or reader.take("set", "data", "type"):
            yield from _other_ends(table, known, column=column)
            yield from ((key.table, Mode.ACCESS_EXCLUSIVE) for key in known.referring_to(table))
    elif reader.take("attach", "partition") or reader.take("detach", "partition"):
        yield reader.name(), Mode.ACCESS_EXCLUSIVE
    elif reader.take("inherit"):
        yield reader.name(), Mode.SHARE_UPDATE_EXCLUSIVE
    if reader.skip_past("cascade"):
        yield _DEPENDANTS


def _other_ends(table: str, known: Known, *, name: str = "", column: str = "") -> Locks:
    for key in known.referenced_by(table):
        if key.name == name or column in key.columns:
            yield key.referenced, Mode.ACCESS_EXCLUSIVE


def _drop(reader: Reader, known: Known) -> Locks:
    reader.skip("materialized")
    kind = reader.word()
    mode = Mode.SHARE_UPDATE_EXCLUSIVE if reader.take("concurrently") else Mode.ACCESS_EXCLUSIVE
    reader.take("if", "exists")
    if kind in ("policy", "rule", "trigger") and reader.skip_past("on"):
        yield reader.name(), mode
    elif kind == "index":
        yield from ((known.table_of_index(index), mode) for index in reader.names())
    elif kind in ("table", "view", "sequence"):
        for relation in reader.names():
            yield relation, mode
            yield from ((key.referenced, mode) for key in known.referenced_by(relation))
    elif kind not in _HARMLESS_TO_DROP:
        yield UNKNOWN
    if reader.skip_past("cascade"):
        yield _DEPENDANTS


def _truncate(reader: Reader, known: Known) -> Locks:
    reader.take("table")
    reader.take("only")
    tables = reader.names()
    yield from ((table, Mode.ACCESS_EXCLUSIVE) for table in tables)
    if reader.skip_past("cascade"):
        yield from ((key.table, Mode.ACCESS_EXCLUSIVE) for table in tables for key in known.referring_to(table))
        yield _DEPENDANTS


def _lock(reader: Reader, _: Known) -> Locks:
    reader.take("table")
    reader.take("only")
    tables = reader.names()
    words = " ".join(token.text for token in reader.rest)
    named = [mode for mode in Mode if words.startswith(f"in {str(mode).lower()} mode")]
    yield from ((table, named[0] if named else Mode.ACCESS_EXCLUSIVE) for table in tables)


def _write(reader: Reader, _: Known) -> Locks:
    reader.take_one_of("into", "from")
    reader.take("only")
    yield reader.name(), Mode.ROW_EXCLUSIVE


def _comment(reader: Reader, _: Known) -> Locks:
    reader.take("on")
    reader.skip("materialized")
    kind = reader.word()
    if kind in ("table", "view", "column"):
        name = reader.name()
        yield name.rpartition(".")[0] if kind == "column" else name, Mode.SHARE_UPDATE_EXCLUSIVE


def _refresh(reader: Reader, _: Known) -> Locks:
    reader.take("materialized", "view")
    mode = Mode.EXCLUSIVE if reader.take("concurrently") else Mode.ACCESS_EXCLUSIVE
    yield reader.name(), mode


def _analyze(reader: Reader, _: Known) -> Locks:
    reader.take("verbose")
    yield from ((table, Mode.SHARE_UPDATE_EXCLUSIVE) for table in reader.names()) if reader.rest else [UNKNOWN]


def _grants_only(tokens: Sequence[Token]) -> bool:
    """Whether a DO does nothing but EXECUTE grants that it puts together."""
    body = next((token.text for token in tokens if token.kind == "string"), "")
    reader = Reader([token for token in tokens_of(body) if not token.is_any("format", "(")])
    executed = 0
    while reader.skip_past("execute"):
        executed += 1
        if reader.word().split()[:1] not in (["GRANT"], ["REVOKE"]):
            return False
    does_more = any(token.is_any(*_READERS, "perform", "call", "do", "select") for token in tokens_of(body))
    return executed > 0 and not does_more


_READERS: Final = {
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
