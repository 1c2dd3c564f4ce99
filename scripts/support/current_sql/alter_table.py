"""ALTER TABLE, folded into the table that it changes. An action that no part of CREATE TABLE says, such as SET
STATISTICS, is kept as it is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from scripts.support.current_sql.grants import forget_column
from scripts.support.current_sql.parts import (
    Column,
    Constraint,
    NotFoldable,
    Part,
    Schema,
    Source,
    Table,
    joined,
    mentioned,
    read_element,
    refuse_cascade,
)
from tenant_schemas.sql_lint.lexer import Reader, Token, tokens_of

# The longest constraint that stands on one line, with its four spaces and a comma.
_ONE_LINE_CHARACTERS: Final = 115
_WITH_A_COLUMN: Final = ("index", "constraint", "statistics")
_NOT_FOLDABLE: Final = ("rename", "attach", "detach", "inherit", "no", "of", "owner")


@dataclass(frozen=True, slots=True)
class _Action:
    """One action of an ALTER TABLE, read as far as its own words go."""

    schema: Schema
    source: Source
    table: Table
    reader: Reader
    comments: list[str]


def alter_table(schema: Schema, source: Source, table: str, action: Sequence[Token], comments: list[str]) -> None:
    """Apply one action. Raises NotFoldable."""
    found = schema.parts.get(("table", table))
    if not isinstance(found, Table):
        raise NotFoldable
    begun = _Action(schema, source, found, Reader(action), comments)
    for words, change in _CHANGES.items():
        if begun.reader.take(*words):
            return change(begun)
    if action[0].is_any(*_NOT_FOLDABLE):
        raise NotFoldable
    return _keep(begun, "alteration", source.text(action), source.text(action))


def _keep(action: _Action, kind: str, name: str, text: str, comments: list[str] | None = None) -> None:
    """Write an action down as a statement of its own. Under its kind and name it takes the place of an earlier one."""
    table = action.table.name
    key = (kind, f"{table}.{name}")
    comments = action.comments if comments is None else comments
    action.schema.parts[key] = Part(*key, table, f"ALTER TABLE {table} {text}", comments)


def _enable_row_security(action: _Action) -> None:
    _keep(action, "row security", "", "ENABLE ROW LEVEL SECURITY")


def _disable_row_security(action: _Action) -> None:
    action.schema.parts.pop(("row security", f"{action.table.name}."), None)


def _disable_trigger(action: _Action) -> None:
    trigger = action.reader.name()
    _keep(action, "trigger state", trigger, f"DISABLE TRIGGER {trigger}")


def _enable_trigger(action: _Action) -> None:
    action.schema.parts.pop(("trigger state", f"{action.table.name}.{action.reader.name()}"), None)


def _add(action: _Action) -> None:
    action.reader.skip("column")
    action.reader.take("if", "not", "exists")
    one = read_element(action.source, action.reader.rest)
    if isinstance(one, Column):
        one.above = action.comments
        action.table.columns.append(one)
    else:
        _add_constraint(action, one)


def _add_constraint(action: _Action, one: Constraint) -> None:
    """A constraint that is made anew in one revision keeps its place and its comment."""
    table, last_words = action.table, [token.text for token in action.reader.rest[-2:]]
    at, comments = action.schema.dropped.pop((table.name, one.name), (len(table.constraints), []))
    one.above = joined([comments, action.comments])
    if last_words == ["not", "valid"] or Reader(action.reader.rest).skip_past("using", "index"):
        # CREATE TABLE would make the one valid, and does not know the other.
        _keep(action, "constraint", one.name, f"ADD {one.text}", one.above)
    else:
        one.text = _in_create_table(one.text)
        table.constraints.insert(at, one)


def _in_create_table(text: str) -> str:
    """A constraint's text on one line if it fits there, else with its lines moved to the right."""
    line = " ".join(part.strip() for part in text.splitlines())
    fits = len(line) <= _ONE_LINE_CHARACTERS and "--" not in text
    return line if fits else text.replace("\n", "\n    ")


def _validate_constraint(action: _Action) -> None:
    name = action.reader.name()
    part = action.schema.parts.get(("constraint", f"{action.table.name}.{name}"))
    tokens = list(tokens_of(part.text)) if part else []
    if part and [token.text for token in tokens[-2:]] == ["not", "valid"]:
        start = next(at for at, token in enumerate(tokens) if token.is_any("constraint"))
        text = Source(part.text).text(tokens[start:-2])
        action.table.constraints.append(Constraint(name, _in_create_table(text), part.comments))
        del action.schema.parts[part.kind, part.name]


def _drop_constraint(action: _Action) -> None:
    table, reader = action.table, action.reader
    reader.take("if", "exists")
    name = reader.name()
    refuse_cascade(reader.rest)
    if part := action.schema.remove("constraint", f"{table.name}.{name}"):
        of_index = Reader([*tokens_of(part.text)])
        if of_index.skip_past("using", "index"):
            action.schema.remove("index", of_index.name())
        return
    for at, constraint in enumerate(table.constraints):
        if constraint.name == name:
            action.schema.dropped[table.name, name] = (at, action.comments)
            del table.constraints[at]
            return
    for column in table.columns:
        kept = [clause for clause in column.clauses if not Reader([*tokens_of(clause)]).take("constraint", name)]
        if len(kept) < len(column.clauses):
            column.clauses = kept
            return
    raise NotFoldable


def _drop_column(action: _Action) -> None:
    """With a column go the constraints, indexes and statistics that it is in, as PostgreSQL does it."""
    table, reader = action.table, action.reader
    reader.skip("column")
    reader.take("if", "exists")
    name = reader.name()
    refuse_cascade(reader.rest)
    table.columns = [column for column in table.columns if column.name != name]
    for constraint in [one for one in table.constraints if name in mentioned(_own_columns(one.text))]:
        table.constraints.remove(constraint)
        action.schema.remove("constraint", f"{table.name}.{constraint.name}")
    for part in list(action.schema.parts.values()):
        if part.owner == table.name and part.kind in _WITH_A_COLUMN and name in mentioned(_own_columns(part.text)):
            action.schema.remove(part.kind, part.name)
    action.schema.remove("column", f"{table.name}.{name}")
    forget_column(action.schema, table.name, name)


def _own_columns(text: str) -> str:
    """A foreign key without the columns that it refers to."""
    end = next((token.start for token in tokens_of(text) if token.is_any("references")), len(text))
    return text[:end]


def _alter_column(action: _Action) -> None:
    reader = action.reader
    action_text = f"ALTER {action.source.text(reader.rest)}"
    reader.skip("column")
    name = reader.name()
    column = next((column for column in action.table.columns if column.name == name), None)
    if column is None:
        raise NotFoldable
    if reader.take("set", "not", "null"):
        column.set_clause("not null", "NOT NULL")
    elif reader.take("drop", "not", "null"):
        column.set_clause("not null", "")
    elif reader.take("set", "default"):
        column.set_clause("default", f"DEFAULT {action.source.text(reader.rest)}")
    elif reader.take("drop", "default"):
        column.set_clause("default", "")
    elif reader.take("drop", "expression"):
        column.set_clause("generated", "")
    elif reader.take("type") or reader.take("set", "data", "type"):
        column.type = action.source.text(_before_using(reader.rest))
    else:
        return _keep(action, "alteration", action_text, action_text)
    column.above = joined([column.above, action.comments])
    return None


def _before_using(tokens: Sequence[Token]) -> Sequence[Token]:
    end = next((at for at, token in enumerate(tokens) if token.is_any("using")), len(tokens))
    return tokens[:end]


_CHANGES: Final[dict[tuple[str, ...], Callable[[_Action], None]]] = {
    ("add",): _add,
    ("validate", "constraint"): _validate_constraint,
    ("drop", "constraint"): _drop_constraint,
    ("drop",): _drop_column,
    ("alter",): _alter_column,
    ("enable", "row", "level", "security"): _enable_row_security,
    ("disable", "row", "level", "security"): _disable_row_security,
    ("disable", "trigger"): _disable_trigger,
    ("enable", "trigger"): _enable_trigger,
}
