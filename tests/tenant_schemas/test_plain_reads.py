"""A plain read writes nothing, locks nothing and sets nothing. What can't be known for certain is no plain read."""

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, joinedload, mapped_column, relationship
from sqlalchemy.sql.functions import GenericFunction

from tenant_schemas.plain_reads import ReadCompiler
from tenant_schemas.search_path import BindingDialect


class Model(DeclarativeBase):
    """Two tables, with the columns that the tests need."""


class Owner(Model):
    """A row that others point to."""

    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)


class Wallet(Model):
    """A row that points to another."""

    __tablename__ = "wallets"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("owners.id"))
    balance: Mapped[int]
    owner: Mapped[Owner] = relationship()


class OwnFunction(GenericFunction[int]):
    """The program's own function; SQLAlchemy registers it by its name."""

    type = sa.Integer()
    name = "wallet_open"
    inherit_cache = True


class OwnConstruct(sa.ColumnElement[int]):
    """The program's own construct, which compiles to a call."""

    type = sa.Integer()
    inherit_cache = True


@compiles(OwnConstruct)
def compile_own(*_: Any, **__: Any) -> str:
    return "wallet_open_v1()"


def is_plain_read(statement: Any) -> bool:
    compiled = statement.compile(dialect=BindingDialect())
    return isinstance(compiled, ReadCompiler) and compiled.is_plain_read


TABLE = sa.table("wallets", sa.column("id"), sa.column("balance"))
INSERT = sa.insert(TABLE).values(id=1)
SELECT = sa.select(Wallet.id)

PLAIN = {
    "a row": sa.select(Wallet).where(Wallet.id == 1),
    "a page": sa.select(Wallet).order_by(Wallet.id.desc()).limit(10).offset(5),
    "a join": sa.select(Wallet, Owner).join(Owner).options(joinedload(Wallet.owner)),
    "an alias": sa.select(aliased(Wallet)),
    "a subquery": sa.select(sa.select(sa.func.sum(Wallet.balance)).scalar_subquery(), sa.exists(SELECT)),
    "a CTE": sa.select(SELECT.cte("found")),
    "a union": SELECT.union_all(SELECT),
    "an aggregate": sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(Wallet.balance), 0)).group_by(
        Wallet.owner_id
    ),
    "a clock": sa.select(sa.func.now(), sa.func.clock_timestamp(), sa.func.statement_timestamp()),
    "a window": sa.select(sa.func.rank().over(order_by=Wallet.id), sa.cast(Wallet.balance, sa.Text)),
    "a case": sa.select(sa.case((Wallet.balance > 0, sa.literal("a")), else_=sa.null())),
    "values": sa.select(sa.values(sa.column("n", sa.Integer), name="v").data([(1,), (2,)])),
    "a comparison of tuples": SELECT.where(sa.tuple_(Wallet.id, Wallet.balance) < sa.tuple_(1, 2)),
    "members of a list": SELECT.where(Wallet.id.in_([1, 2])),
}

OTHER = {
    "SQL text": sa.text("SELECT 1"),
    "SQL text with columns": sa.text("SELECT 1 AS id").columns(sa.column("id")),
    "text as a column": sa.select(sa.text("wallet_open_v1()")),
    "text as a condition": SELECT.where(sa.text("wallet_open_v1()")),
    "text as an order": SELECT.order_by(sa.text("wallet_open_v1()")),
    "text as a table": sa.select(sa.column("id")).select_from(sa.text("wallet_open_v1()")),
    "a literal column": sa.select(sa.literal_column("wallet_open_v1()")),
    "a prefix": SELECT.prefix_with("wallet_open_v1(),"),
    "a suffix": SELECT.suffix_with("FOR UPDATE"),
    "a hint": SELECT.with_statement_hint("FOR UPDATE"),
    "FOR UPDATE": SELECT.with_for_update(),
    "FOR NO KEY UPDATE": SELECT.with_for_update(key_share=True),
    "FOR SHARE": SELECT.with_for_update(read=True, skip_locked=True),
    "FOR UPDATE in a subquery": sa.select(SELECT.with_for_update().subquery()),
    "FOR UPDATE in a union": SELECT.union_all(SELECT.with_for_update()),
    "INSERT": INSERT,
    "INSERT … RETURNING": INSERT.returning(TABLE.c.id),
    "INSERT … ON CONFLICT": postgresql.insert(TABLE).values(id=1).on_conflict_do_nothing(),
    "UPDATE": sa.update(TABLE).values(balance=1),
    "DELETE": sa.delete(TABLE),
    "INSERT in a CTE": sa.select(INSERT.returning(TABLE.c.id).cte("made")),
    "INSERT in an unused CTE": SELECT.add_cte(INSERT.cte("made")),
    "a function": sa.select(sa.func.wallet_open_v1()),
    "set_config": sa.select(sa.func.set_config("search_path", "km_schema", False)),
    "a lock": sa.select(sa.func.pg_advisory_lock(1)),
    "a function as a table": sa.select(sa.func.wallet_open_v1().table_valued("id")),
    "a function as a column's value": sa.select(sa.func.wallet_open_v1().column_valued()),
    "a function in an argument": sa.select(sa.func.coalesce(sa.func.wallet_open_v1(), 0)),
    "a function of a schema": sa.select(sa.func.km_schema.clock_timestamp()),
    "a function in a condition": SELECT.where(sa.func.wallet_open_v1() == 1),
    "a sequence": sa.select(sa.Sequence("numbers").next_value()),
    "a function of the program's own class": sa.select(sa.func.wallet_open()),
    "a construct of the program's own": sa.select(OwnConstruct()),
    "DDL": sa.DDL("SET search_path TO km_schema"),
}


@pytest.mark.parametrize("case", PLAIN)
def test_a_select_of_tables_and_known_functions_is_a_plain_read(case: str) -> None:
    assert is_plain_read(PLAIN[case])


@pytest.mark.parametrize("case", OTHER)
def test_a_statement_that_may_write_lock_or_set_is_no_plain_read(case: str) -> None:
    assert not is_plain_read(OTHER[case])
