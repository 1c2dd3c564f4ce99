"""The schema at the head of a history, folded from the SQL of its revisions: every object once, as it is today.

It reads the SQL, not a server, and knows nothing of what a revision in Python makes. `proof` finds that.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from scripts.support.current_sql.alter_table import alter_table
from scripts.support.current_sql.grants import executed_grants, grant_or_revoke
from scripts.support.current_sql.parts import NotFoldable, Part, Schema, Source, joined, read_table, refuse_cascade
from scripts.support.current_sql.revisions import Commented, Revision
from tenant_schemas.sql_lint.lexer import Reader, split_by_commas, tokens_of
from tenant_schemas.sql_lint.rules import is_pointer
from tenant_schemas.sql_lint.schema_model import SchemaModel, table_and_actions

# Statements that write rows, or hold for the db transaction alone.
_LEAVE_NO_OBJECT: Final = (
    *("insert", "update", "delete", "merge", "truncate", "select", "with", "values", "call", "lock", "set", "reset"),
    *("analyze", "refresh"),
)
_STANDALONE: Final = ("function", "procedure", "aggregate", "view", "type", "domain", "sequence")
# What stands beside a table, and the word before the table's name in its CREATE.
_BESIDE: Final = {"index": "on", "trigger": "on", "policy": "on", "rule": "to", "statistics": "from"}


class NotFolded(Exception):
    """A revision has a statement that `fold` does not know."""

    def __init__(self, revision: str, statement: str) -> None:
        super().__init__(
            f"Revision {revision}: current.sql can't be generated, because scripts/support/current_sql/ does not know "
            f"this statement. Write it in another way, or extend that package.\n    {statement}"
        )


def fold(revisions: Iterable[Revision]) -> Schema:
    """What the revisions make, in the order in which each object was first made. Raises NotFolded."""
    schema, model = Schema(), SchemaModel()
    for revision in revisions:
        schema.dropped.clear()
        for commented in revision.statements:
            try:
                _apply(schema, model, revision.source, commented)
            except NotFoldable:
                raise NotFolded(revision.number, commented.statement.summary) from None
            model.apply(commented.statement)
    return schema


def _apply(schema: Schema, model: SchemaModel, source: Source, commented: Commented) -> None:
    tokens, comments = commented.statement.tokens, commented.comments
    reader = Reader(tokens)
    verb = reader.word()
    if verb == "create":
        _create(schema, model, source, commented)
    elif verb == "alter" and reader.take("table"):
        table, actions = table_and_actions(reader)
        for action in actions:
            alter_table(schema, source, table, action, comments)
    elif verb == "alter":
        _alter(schema, model, source.text(tokens), reader)
    elif verb == "drop":
        _drop(schema, reader)
    elif verb == "comment":
        _comment(schema, model, source.text(tokens), reader, comments)
    elif verb in ("grant", "revoke"):
        grant_or_revoke(schema, source, tokens, comments)
    elif verb == "do":
        for text in executed_grants(tokens):
            grant_or_revoke(schema, Source(text), list(tokens_of(text)), comments)
            comments = []
    elif verb not in _LEAVE_NO_OBJECT:
        raise NotFoldable


def _create(schema: Schema, model: SchemaModel, source: Source, commented: Commented) -> None:
    """An object that is replaced keeps its place, and its comment too, but for a function that is now a pointer."""
    tokens = commented.statement.tokens
    reader = Reader(tokens[1:])
    replaces = reader.take("or", "replace")
    text = "CREATE" + source.sql[tokens[2 if replaces else 0].end : tokens[-1].end]
    reader.skip("unique", "unlogged", "constraint", "recursive", "materialized")
    kind = reader.word()
    reader.skip("concurrently")
    reader.take("if", "not", "exists")
    name = owner = reader.name()
    if kind in _BESIDE and reader.skip_past(_BESIDE[kind]):
        reader.take("only")
        owner = reader.name()
        name = _name_beside(kind, name, owner)
    elif kind == "extension":
        owner = _owner_of_extension(name)
    elif kind not in ("table", *_STANDALONE):
        raise NotFoldable
    part = Part(kind, name, owner, text, commented.comments)
    if kind == "table":
        part = read_table(source, tokens, commented.comments)
    old = schema.parts.get((kind, name))
    if old and not replaces:
        raise NotFoldable
    if old and not is_pointer(commented.statement, model):
        part.comments = joined([old.comments, part.comments])
    schema.parts[kind, name] = part


def _alter(schema: Schema, model: SchemaModel, text: str, reader: Reader) -> None:
    """Keep what is no table's, such as ALTER TYPE … ADD VALUE, as it is written. A policy is dropped and made anew."""
    reader.skip("materialized")
    kind = reader.word()
    name = reader.name()
    if kind not in ("index", *_STANDALONE) or any(token.is_any("rename", "owner", "schema") for token in reader.rest):
        raise NotFoldable
    owner = model.table_of_index(name) if kind == "index" else name
    schema.parts["alteration", text] = Part("alteration", text, owner, text)


def _drop(schema: Schema, reader: Reader) -> None:
    reader.skip("materialized")
    kind = reader.word()
    reader.skip("concurrently")
    reader.take("if", "exists")
    refuse_cascade(reader.rest)
    if kind not in ("table", "extension", *_STANDALONE, *_BESIDE):
        raise NotFoldable
    for one in split_by_commas(reader.rest):
        naming = Reader(one)
        name = naming.name()
        if kind in _BESIDE:
            name = _name_beside(kind, name, naming.name() if naming.take("on") else "")
            schema.remove(kind, name)
        elif kind == "extension":
            schema.remove(kind, name)
        else:
            schema.parts = {key: part for key, part in schema.parts.items() if part.owner != name}
            schema.grants = [grant for grant in schema.grants if grant.owner != name]


def _comment(schema: Schema, model: SchemaModel, text: str, reader: Reader, comments: Sequence[str]) -> None:
    reader.take("on")
    reader.skip("materialized")
    kind = reader.word()
    name = owner = reader.name()
    if kind == "column":
        owner = name.rpartition(".")[0]
    elif kind == "index":
        owner = model.table_of_index(name)
    elif reader.skip_past("on"):
        owner = reader.name()
        name = _name_beside(kind, name, owner)
    key = ("comment", f"{kind} {name}")
    schema.parts.pop(key, None)
    if not text.lower().endswith(" null"):
        schema.parts[key] = Part(*key, owner, text, list(comments))


def _owner_of_extension(name: str) -> str:
    """No object's name: an extension stands before all objects of the schema."""
    return f"extension {name}"


def _name_beside(kind: str, name: str, table: str) -> str:
    """An index has a name in its schema, a trigger or policy one in its table."""
    if kind not in ("index", "statistics"):
        return f"{table}.{name}"
    schema_name = table.rpartition(".")[0]
    return f"{schema_name}.{name}" if schema_name and "." not in name else name
