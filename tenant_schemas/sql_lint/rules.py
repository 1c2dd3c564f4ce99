"""The laws that a revision's SQL keeps, so that one text is right for every tenant and the road to Citus stays open
(DESIGN §8). It reads the SQL, and judges no function's body but one that takes the place of another.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tenant_schemas.sql_lint.lexer import Reader, Statement, Token, statements_of, tokens_of
from tenant_schemas.sql_lint.schema_model import Known, known_after, table_and_actions, table_and_elements
from tenant_schemas.tenant import SHARED_SCHEMA


@dataclass(frozen=True, slots=True)
class Breach:
    """A statement, and the law that it breaks."""

    law: str
    statement: str


_OPEN_SCHEMAS: Final = frozenset({SHARED_SCHEMA, "pg_catalog", "information_schema"})
_SERIALS: Final = ("serial", "bigserial", "smallserial", "serial2", "serial4", "serial8")
# What follows these is a relation, function or type, or a column of one.
_BEFORE_NAMES: Final = (
    *("table", "view", "index", "sequence", "function", "procedure", "type", "domain", "trigger", "statistics"),
    *("into", "update", "references", "join", "truncate", "only", "exists", "inherits"),
)
# In statements that begin with these a relation's name follows the first ON.
_NAMED_ON: Final = ("index", "trigger", "policy", "rule", "grant", "revoke", "comment")
_VERSIONED: Final = re.compile(r"(?P<stem>.+)_v(?P<version>\d+)")
# A function whose body has one of these decides, repeats, writes or reads by itself.
_MORE_THAN_A_CALL: Final = (
    *("if", "case", "loop", "while", "for", "foreach", "exit", "continue", "raise", "exception", "assert"),
    *("insert", "update", "delete", "merge", "truncate", "copy", "lock", "set", "create", "alter", "drop", "grant"),
    *("revoke", "execute", "join", "where", "having", "union", "intersect", "except", "with", "table", "notify"),
)


def breaches_of(sql: str, before: str = "") -> tuple[Breach, ...]:
    """The broken laws, in the order of the statements. `before` is the SQL of the revisions before this one: it says
    which functions exist.
    """
    known, found = known_after(before), []
    for statement in statements_of(sql):
        found += [Breach(law, statement.shown) for law, is_broken in _LAWS.items() if is_broken(statement)]
        if is_rewrite(statement, known) and not is_pointer(statement, known):
            found.append(Breach(_NEW_VERSION, statement.shown))
        known.learn(statement)
    return tuple(found)


def is_rewrite(statement: Statement, known: Known) -> bool:
    """Whether this makes a function whose name was used before, also by one that was dropped.

    Views have no versions and may be replaced: PostgreSQL lets CREATE OR REPLACE VIEW add columns at the end only, so
    code of an earlier release still reads the view.
    """
    return _made_function(statement)[1] in known.functions


def is_pointer(statement: Statement, known: Known) -> bool:
    """Whether this makes a function whose body calls one later version of it, and does nothing else but pass values."""
    reader, name = _made_function(statement)
    body = _body(reader.rest)
    calls = [called for called in _calls(body) if called in known.functions]
    if len(calls) != 1 or not _succeeds(calls[0], name) or any(token.is_any(*_MORE_THAN_A_CALL) for token in body):
        return False
    reader = Reader(body)
    while reader.skip_past("from"):
        if reader.name() != calls[0] or not _ends_from(reader):
            return False
    return True


def _renames_constraint(statement: Statement) -> bool:
    return any(action[0].is_any("rename") and action[1].is_any("constraint") for action in _actions(statement))


def _has_several_actions(statement: Statement) -> bool:
    return len(_actions(statement)) > 1


def _counts(statement: Statement) -> bool:
    if Reader(statement.tokens).skip_past("as", "identity"):
        return True
    elements = [[part for part in action if not part.is_any("add", "column")] for action in _actions(statement)]
    return any(len(element) > 1 and element[1].is_any(*_SERIALS) for element in [*elements, *_elements(statement)])


def _lacks_primary_key(statement: Statement) -> bool:
    reader = _create_table(statement)
    if reader is None:
        return False
    has_key = Reader(statement.tokens).skip_past("primary", "key")
    return not has_key and not Reader(statement.tokens).skip_past("partition", "of")


def _defers(statement: Statement) -> bool:
    tokens = statement.tokens
    deferrable = any(token.is_any("deferrable") and not before.is_any("not") for before, token in pairwise(tokens))
    return deferrable or Reader(tokens).take("set", "constraints") or Reader(tokens).skip_past("initially", "deferred")


def _is_concurrent(statement: Statement) -> bool:
    return any(token.is_any("concurrently") for token in statement.tokens)


def _sets_path(statement: Statement) -> bool:
    """Also as the setting of a function, unless that is the path of the schema that it is made in."""
    reader = Reader(statement.tokens)
    while reader.skip_past("search_path"):
        if not reader.take("from", "current"):
            return True
    return any(token.kind == "string" and token.text == "search_path" for token in statement.tokens)


def _names_schema(statement: Statement) -> bool:
    return any(
        following[0].kind in ("word", "name") and following[1].is_any(".") and following[0].text not in _OPEN_SCHEMAS
        for following in _names(statement.tokens)
        if len(following) > 1
    )


def _leaves_function_unpinned(statement: Statement) -> bool:
    reader, name = _made_function(statement)
    if not name:
        return False
    # A body that is no string is read when the function is made, and means the tables of that moment for good.
    is_string = not any(token.is_any("return", "atomic") for token in reader.rest)
    return is_string and not reader.skip_past("set", "search_path", "from", "current")


def _made_function(statement: Statement) -> tuple[Reader, str]:
    """The name of the function or procedure that this makes, and what follows it; no name if it makes none."""
    reader = Reader(statement.tokens)
    reader.take("create")
    reader.take("or", "replace")
    return reader, reader.name() if reader.take_one_of("function", "procedure") else ""


def _ends_from(reader: Reader) -> bool:
    """Whether the call that begins here is all that its FROM reads."""
    depth = 0
    for token in reader.rest:
        depth += token.is_any("(") - token.is_any(")")
        if depth < 0 or (depth == 0 and token.is_any(";", ",")):
            return not token.is_any(",")
    return True


def _calls(body: Sequence[Token]) -> Iterator[str]:
    for at in range(len(body)):
        reader = Reader(body[at:])
        if (at == 0 or not body[at - 1].is_any(".")) and (name := reader.name()) and reader.take("("):
            yield name


def _succeeds(later: str, name: str) -> bool:
    versions = [_VERSIONED.fullmatch(one) for one in (name, later)]
    if versions[0] is None or versions[1] is None:
        return False
    return versions[0]["stem"] == versions[1]["stem"] and int(versions[0]["version"]) < int(versions[1]["version"])


def _body(definition: Sequence[Token]) -> list[Token]:
    """The tokens inside the string that follows AS, or those from RETURN or BEGIN ATOMIC on."""
    for at, (token, following) in enumerate(pairwise(definition)):
        if token.is_any("as") and following.kind == "string":
            return list(tokens_of(following.text))
        if token.is_any("return") or (token.is_any("begin") and following.is_any("atomic")):
            return list(definition[at:])
    return []


_NEW_VERSION: Final = (
    "A changed function is a new version (x_v2). The old version may be replaced only by a function that calls the new "
    "version and does nothing else."
)
_LAWS: Final[dict[str, Callable[[Statement], bool]]] = {
    "No RENAME CONSTRAINT: drop it and add it anew.": _renames_constraint,
    "One action to an ALTER TABLE.": _has_several_actions,
    "No identity, no serial: keys are uuid.": _counts,
    "Every table has a primary key.": _lacks_primary_key,
    "No deferred constraints.": _defers,
    "No CONCURRENTLY: a revision is one db transaction.": _is_concurrent,
    "No search_path but FROM CURRENT: the migration's is one schema.": _sets_path,
    "No schema by name but shared: the text is the same for every tenant.": _names_schema,
    "A function whose body is a string is pinned: SET search_path FROM CURRENT.": _leaves_function_unpinned,
}


def _actions(statement: Statement) -> list[list[Token]]:
    reader = Reader(statement.tokens)
    return table_and_actions(reader)[1] if reader.take("alter", "table") else []


def _elements(statement: Statement) -> list[list[Token]]:
    reader = _create_table(statement)
    return table_and_elements(reader)[1] if reader else []


def _create_table(statement: Statement) -> Reader | None:
    reader = Reader(statement.tokens)
    reader.take("create")
    reader.skip("temp", "temporary", "unlogged", "foreign")
    return reader if reader.take("table") else None


def _names(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """What begins where SQL has a relation's, a function's or a type's name."""
    openings = [0]
    reader = Reader(tokens)
    if any(token.is_any(*_NAMED_ON) for token in tokens[:4]) and reader.skip_past("on"):
        yield reader.rest
    for at, token in enumerate(tokens):
        if token.is_any("("):
            openings.append(at + 1)
        elif token.is_any(")"):
            openings = openings[:-1] or [0]
        elif token.is_any(*_BEFORE_NAMES) or (token.is_any("from") and _is_clause(tokens, at, openings[-1])):
            yield tokens[at + 1 :]


def _is_clause(tokens: Sequence[Token], at: int, opening: int) -> bool:
    """Whether this FROM has a table after it: not so in `IS DISTINCT FROM a.b` and `extract(epoch FROM a.b)`."""
    return not tokens[at - 1].is_any("distinct") and (
        opening == 0 or tokens[opening].is_any("select", "with", "delete")
    )
