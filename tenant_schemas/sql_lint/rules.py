"""The rules for a revision's SQL: one text must be right for every tenant, and must run on Citus.

They read statements, and a function's body only if the function replaces an existing one.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tenant_schemas.sql_lint.lexer import Reader, Statement, Token, statements_of, tokens_of
from tenant_schemas.sql_lint.replay_rules import adds_enum_value, makes_database_object
from tenant_schemas.sql_lint.schema_model import SchemaModel, model_after, table_and_actions, table_and_elements
from tenant_schemas.tenant import SHARED_SCHEMA


@dataclass(frozen=True, slots=True)
class Violation:
    """A statement and the rule that it violates."""

    rule: str
    statement: str


_OPEN_SCHEMAS: Final = frozenset({SHARED_SCHEMA, "pg_catalog", "information_schema"})
_SERIALS: Final = ("serial", "bigserial", "smallserial", "serial2", "serial4", "serial8")
# A relation, function or type, or a column of one, follows these keywords.
_KEYWORDS_BEFORE_NAME: Final = (
    *("table", "view", "index", "sequence", "function", "procedure", "type", "domain", "trigger", "statistics"),
    *("into", "update", "references", "join", "truncate", "only", "exists", "inherits"),
)
# In statements that begin with these keywords a relation's name follows the first ON.
_KEYWORDS_WITH_ON: Final = ("index", "trigger", "policy", "rule", "grant", "revoke", "comment")
_VERSIONED: Final = re.compile(r"(?P<stem>.+)_v(?P<version>\d+)")
# A function whose body has one of these words does more than call another function.
_MORE_THAN_A_CALL: Final = (
    *("if", "case", "loop", "while", "for", "foreach", "exit", "continue", "raise", "exception", "assert"),
    *("insert", "update", "delete", "merge", "truncate", "copy", "lock", "set", "create", "alter", "drop", "grant"),
    *("revoke", "execute", "join", "where", "having", "union", "intersect", "except", "with", "table", "notify"),
    *("limit", "offset", "fetch", "and", "or", "not", "in", "is", "between", "like", "array"),
)


def violations_of(sql: str, before: str = "", *, is_shared: bool = False) -> tuple[Violation, ...]:
    """All violations, in the order of the statements. `before` is the SQL of all earlier revisions: it says which
    functions exist. `is_shared` is said of the shared history, which may make objects of the whole database.
    """
    model, found = model_after(before), []
    rules = _RULES if is_shared else _RULES | _TENANT_RULES
    for statement in statements_of(sql):
        found += [Violation(rule, statement.summary) for rule, is_violated in rules.items() if is_violated(statement)]
        if is_rewrite(statement, model) and not is_pointer(statement, model):
            found.append(Violation(_NEW_VERSION, statement.summary))
        model.apply(statement)
    return tuple(found)


def is_rewrite(statement: Statement, model: SchemaModel) -> bool:
    """Whether the statement creates a function under a name that exists or existed.

    Views have no versions and may be replaced: PostgreSQL lets CREATE OR REPLACE VIEW add columns at the end only, so
    code of an earlier release still reads the view.
    """
    return _created_function(statement)[1] in model.functions


def is_pointer(statement: Statement, model: SchemaModel) -> bool:
    """Whether the statement creates a function whose body only calls a later version of it and passes values."""
    reader, name = _created_function(statement)
    body = _body(reader.rest)
    calls = [(at, called) for at, called in _calls(body) if called in model.functions]
    does_more = any(token.is_any(*_MORE_THAN_A_CALL) for token in body) or _computes(body)
    if does_more or len(calls) != 1 or not _is_later_version(calls[0][1], name):
        return False
    call, successor = calls[0]
    if _returns_before(body, call) or _has_other_calls(body, call):
        return False
    reader = Reader(body)
    while reader.skip_past("from"):
        if reader.name() != successor or not _ends_from(reader):
            return False
    return True


def _computes(body: Sequence[Token]) -> bool:
    """Whether there is an operator: any symbol but brackets, separators, a cast, `:=` and `=>`."""
    padded = ["", *(token.text if token.kind == "symbol" else "" for token in body), ""]
    for before, text, after in zip(padded, padded[1:], padded[2:], strict=False):
        is_assignment = (text == "=" and (before == ":" or after == ">")) or (text == ">" and before == "=")
        if text and text not in "(),;.:" and not is_assignment:
            return True
    return False


def _returns_before(body: Sequence[Token], call: int) -> bool:
    """Whether a statement before the one of the call returns."""
    begins = max((at for at in range(call) if body[at].is_any(";")), default=0)
    return any(token.is_any("return") for token in body[:begins])


def _has_other_calls(body: Sequence[Token], call: int) -> bool:
    """Whether another function is called, except coalesce among the arguments. An alias may have brackets too."""
    depth, end = 0, call
    for end in range(call, len(body)):
        depth += body[end].is_any("(") - body[end].is_any(")")
        if depth == 0 and body[end].is_any(")"):
            break
    others = [(at, called) for at, called in _calls(body) if at != call and not body[at - 1].is_any(")")]
    return any(called != "coalesce" or not call < at < end for at, called in others)


def _renames_constraint(statement: Statement) -> bool:
    return any(action[0].is_any("rename") and action[1].is_any("constraint") for action in _actions(statement))


def _has_several_actions(statement: Statement) -> bool:
    return len(_actions(statement)) > 1


def _has_identity_or_serial(statement: Statement) -> bool:
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


def _has_deferred_constraint(statement: Statement) -> bool:
    tokens = statement.tokens
    deferrable = any(token.is_any("deferrable") and not before.is_any("not") for before, token in pairwise(tokens))
    return deferrable or Reader(tokens).take("set", "constraints") or Reader(tokens).skip_past("initially", "deferred")


def _has_concurrently(statement: Statement) -> bool:
    return any(token.is_any("concurrently") for token in statement.tokens)


def _sets_search_path(statement: Statement) -> bool:
    """Also a function's own setting, unless it is FROM CURRENT: the schema in which the function is created."""
    reader = Reader(statement.tokens)
    while reader.skip_past("search_path"):
        if not reader.take("from", "current"):
            return True
    return any(token.kind == "string" and token.text == "search_path" for token in statement.tokens)


def _names_other_schema(statement: Statement) -> bool:
    return any(
        following[0].kind in ("word", "name") and following[1].is_any(".") and following[0].text not in _OPEN_SCHEMAS
        for following in _names(statement.tokens)
        if len(following) > 1
    )


def _has_unpinned_function(statement: Statement) -> bool:
    reader, name = _created_function(statement)
    if not name:
        return False
    # PostgreSQL resolves the names in a body that is not a string once, when it creates the function.
    is_string = not any(token.is_any("return", "atomic") for token in reader.rest)
    return is_string and not reader.skip_past("set", "search_path", "from", "current")


def _created_function(statement: Statement) -> tuple[Reader, str]:
    """The name of the function or procedure that the statement creates, or an empty name, and a reader of the rest."""
    reader = Reader(statement.tokens)
    reader.take("create")
    reader.take("or", "replace")
    return reader, reader.name() if reader.take_one_of("function", "procedure") else ""


def _ends_from(reader: Reader) -> bool:
    """Whether the call at this position is the only item of its FROM."""
    depth = 0
    for token in reader.rest:
        depth += token.is_any("(") - token.is_any(")")
        if depth < 0 or (depth == 0 and token.is_any(";", ",")):
            return not token.is_any(",")
    return True


def _calls(body: Sequence[Token]) -> Iterator[tuple[int, str]]:
    """Each name before an opening bracket, and its position."""
    for at in range(len(body)):
        reader = Reader(body[at:])
        if (at == 0 or not body[at - 1].is_any(".")) and (name := reader.name()) and reader.take("("):
            yield at, name


def _is_later_version(later: str, name: str) -> bool:
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
    "A changed function needs a new version (x_v2). Replace the old version only by a function that calls the new one "
    "and does nothing else."
)
_RULES: Final[dict[str, Callable[[Statement], bool]]] = {
    "No RENAME CONSTRAINT: drop the constraint and add it again.": _renames_constraint,
    "One action per ALTER TABLE: write one statement for each action.": _has_several_actions,
    "No identity column and no serial: keys are uuid.": _has_identity_or_serial,
    "Every table needs a primary key.": _lacks_primary_key,
    "No deferred constraints.": _has_deferred_constraint,
    "No CONCURRENTLY: a revision runs in one db transaction. One that makes or drops one index, and does nothing else, "
    "says `concurrently = True` in its file.": _has_concurrently,
    "No ALTER TYPE … ADD VALUE: no statement may use the value before its db transaction has ended, and a restore or a "
    "new tenant runs all revisions in one. Use text with a CHECK, or make a new type.": adds_enum_value,
    "No search_path except FROM CURRENT: the migrator sets it to one schema.": _sets_search_path,
    "No schema name except shared: the SQL is the same for every tenant.": _names_other_schema,
    "A function with a string body must be pinned: add SET search_path FROM CURRENT.": _has_unpinned_function,
}

_TENANT_RULES: Final[dict[str, Callable[[Statement], bool]]] = {
    "No extension, schema, role or other object of the whole database in a tenant's revision: it exists once, and the "
    "second tenant would fail. Make it in a shared revision, and write its names with their schema: CREATE EXTENSION "
    "pg_trgm SCHEMA shared, then shared.gin_trgm_ops and OPERATOR(shared.%).": makes_database_object,
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
    """For each place where SQL has the name of a relation, function or type: the tokens from there on."""
    openings = [0]
    reader = Reader(tokens)
    if any(token.is_any(*_KEYWORDS_WITH_ON) for token in tokens[:4]) and reader.skip_past("on"):
        yield reader.rest
    for at, token in enumerate(tokens):
        if token.is_any("("):
            openings.append(at + 1)
        elif token.is_any(")"):
            openings = openings[:-1] or [0]
        elif token.is_any(*_KEYWORDS_BEFORE_NAME) or (token.is_any("from") and _is_clause(tokens, at, openings[-1])):
            yield tokens[at + 1 :]


def _is_clause(tokens: Sequence[Token], at: int, opening: int) -> bool:
    """Whether a table follows this FROM. None does in `IS DISTINCT FROM a.b` and `extract(epoch FROM a.b)`."""
    return not tokens[at - 1].is_any("distinct") and (
        opening == 0 or tokens[opening].is_any("select", "with", "delete")
    )
