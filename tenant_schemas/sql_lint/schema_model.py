"""A model of the schema that SQL statements create: its relations, indexes, foreign keys and function names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tenant_schemas.sql_lint.lexer import Reader, Statement, Token, split_by_commas, statements_of


@dataclass(frozen=True, slots=True)
class ForeignKey:
    table: str
    name: str
    columns: tuple[str, ...]
    referenced: str


@dataclass(slots=True)
class SchemaModel:
    """The objects that the applied statements create. Dropped objects stay in the model."""

    relations: set[str] = field(default_factory=set)
    tables_of_indexes: dict[str, str] = field(default_factory=dict)
    foreign_keys: list[ForeignKey] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)

    def apply(self, statement: Statement) -> None:
        reader = Reader(statement.tokens)
        if reader.take("alter", "table"):
            table, actions = table_and_actions(reader)
            self._add_foreign_keys(table, actions)
        elif reader.take("create"):
            reader.skip("or", "replace", "temp", "temporary", "unlogged", "unique", "recursive", "materialized")
            if reader.take_one_of("function", "procedure"):
                self.functions.add(reader.name())
            elif reader.take_one_of("view", "sequence"):
                reader.take("if", "not", "exists")
                self.relations.add(reader.name())
            elif reader.take("index"):
                self._add_index(reader)
            elif reader.take("table"):
                table, elements = table_and_elements(reader)
                self.relations.add(table)
                self._add_foreign_keys(table, elements)

    def foreign_keys_of(self, table: str) -> Iterator[ForeignKey]:
        """The foreign keys of this table."""
        return (key for key in self.foreign_keys if key.table == table)

    def foreign_keys_to(self, table: str) -> Iterator[ForeignKey]:
        """The foreign keys that refer to this table."""
        return (key for key in self.foreign_keys if key.referenced == table)

    def table_of_index(self, index: str) -> str:
        return self.tables_of_indexes.get(index, f"the table of index {index}")

    def _add_index(self, reader: Reader) -> None:
        reader.skip("concurrently")
        reader.take("if", "not", "exists")
        index = reader.name()
        reader.skip_past("on")
        reader.skip("only")
        table = reader.name()
        schema_name = table.rpartition(".")[0]
        self.tables_of_indexes[f"{schema_name}.{index}" if schema_name else index] = table

    def _add_foreign_keys(self, table: str, parts: Sequence[Sequence[Token]]) -> None:
        self.foreign_keys += [key for part in parts if (key := foreign_key(table, part))]


def model_after(sql: str) -> SchemaModel:
    """The model of the schema after this SQL, for instance that of all earlier revisions."""
    model = SchemaModel()
    for statement in statements_of(sql):
        model.apply(statement)
    return model


def table_and_actions(reader: Reader) -> tuple[str, list[list[Token]]]:
    """Read the rest of an ALTER TABLE: its table and its actions."""
    reader.take("if", "exists")
    reader.skip("only")
    table = reader.name()
    reader.skip("*")
    return table, split_by_commas(reader.rest)


def table_and_elements(reader: Reader) -> tuple[str, list[list[Token]]]:
    """Read the rest of a CREATE TABLE: its table, its columns and constraints."""
    reader.take("if", "not", "exists")
    table = reader.name()
    if not reader.take("("):
        return table, []
    depth, inside = 1, []
    for token in reader.rest:
        depth += token.is_any("(") - token.is_any(")")
        if depth == 0:
            break
        inside.append(token)
    return table, split_by_commas(inside)


def foreign_key(table: str, part: Sequence[Token]) -> ForeignKey | None:
    """The foreign key that a column or constraint of CREATE TABLE or an action of ALTER TABLE creates, if any."""
    reader = Reader(part)
    if not reader.skip_past("references"):
        return None
    referenced = reader.name()
    columns = _columns(part)
    reader, name = Reader(part), "_".join((table.rpartition(".")[2], *columns, "fkey"))
    while reader.skip_past("constraint"):
        name = reader.name()
    return ForeignKey(table, name, columns, referenced)


def _columns(part: Sequence[Token]) -> tuple[str, ...]:
    reader = Reader(part)
    if reader.skip_past("foreign", "key", "("):
        return tuple(reader.names())
    reader = Reader(part)
    reader.skip("add", "column")
    reader.take("if", "not", "exists")
    return (reader.name(),)
