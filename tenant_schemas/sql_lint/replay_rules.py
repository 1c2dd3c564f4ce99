"""Rules for SQL that works when a revision is first run, and fails later: in the second tenant, or when a new tenant or
a restore runs all revisions in one db transaction.
"""

from collections.abc import Sequence
from typing import Final

from tenant_schemas.sql_lint.lexer import Reader, Statement, Token, tokens_of

# These belong to no schema, but to the database or the server.
_OBJECTS_OF_DATABASE: Final = (
    *(("extension",), ("schema",), ("role",), ("user",), ("group",), ("language",), ("server",), ("database",)),
    *(("publication",), ("subscription",), ("tablespace",), ("system",)),
    *(("event", "trigger"), ("foreign", "data", "wrapper"), ("access", "method")),
)


def adds_enum_value(statement: Statement) -> bool:
    """Also in the SQL that a DO block executes."""
    for tokens in _with_executed(statement):
        reader = Reader(tokens)
        if reader.skip_past("alter", "type") and reader.skip_past("add", "value"):
            return True
    return False


def makes_database_object(statement: Statement) -> bool:
    """Also in the SQL that a DO block executes."""
    own, *executed = _with_executed(statement)
    begins = [own, *(tokens[at:] for tokens in executed for at in range(len(tokens)))]
    return any(
        len(tokens) > 1 and tokens[0].is_any("create", "alter", "drop") and _is_of_database(Reader(tokens[1:]))
        for tokens in begins
    )


def _is_of_database(reader: Reader) -> bool:
    reader.skip("trusted", "procedural")
    return any(reader.take(*words) for words in _OBJECTS_OF_DATABASE)


def _with_executed(statement: Statement) -> list[Sequence[Token]]:
    """The statement's tokens; of a DO block also those of its body and of each string in it."""
    if not statement.tokens[0].is_any("do"):
        return [statement.tokens]
    bodies = [list(tokens_of(token.text)) for token in statement.tokens if token.kind == "string"]
    strings = [list(tokens_of(token.text)) for body in bodies for token in body if token.kind == "string"]
    return [statement.tokens, *bodies, *strings]
