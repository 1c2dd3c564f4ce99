"""Answers are dumped as marshmallow alone would dump them."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from marshmallow import fields, post_dump

from app.api.dumper import dumper_of
from app.api.fields import Answer, Moment, Schema
from app.ledger.models import PostedTransaction
from app.ledger.schemas import TransactionPageSchema, TransactionSchema
from app.wallets.schemas import WalletSchema
from tenant_schemas.context import bound
from tenant_schemas.testing.plugin import Database
from tests.factories.schemas import Thing, api_schemas, objects

SCHEMAS = list(api_schemas(Answer))


@pytest.fixture(autouse=True)
def in_tenant(database: Database) -> Iterator[None]:
    """Answers name the bound tenant."""
    with bound(database.tenant("eur")):
        yield


def written(dump: Any, item: Any) -> Any:
    """The JSON, or the kind of error."""
    try:
        return orjson.dumps(dump(item))
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        return type(error)


@pytest.mark.parametrize("schema_class", SCHEMAS, ids=lambda each: f"{each.__module__}.{each.__name__}")
def test_every_schema_dumps_as_marshmallow(schema_class: type[Schema]) -> None:
    schema = schema_class()
    dump = dumper_of(schema)

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(item=objects(schema))
    def compare(item: Any) -> None:
        assert written(dump, item) == written(schema.dump, item)

    compare()


@pytest.mark.parametrize("schema_class", [TransactionSchema, TransactionPageSchema, WalletSchema])
def test_the_most_frequent_answers_do_not_need_marshmallow(schema_class: type[Schema]) -> None:
    schema = schema_class()
    assert dumper_of(schema) != schema.dump


def test_an_attribute_that_an_object_lacks_is_left_out() -> None:
    whole = dict.fromkeys(PostedTransaction.__dataclass_fields__)
    assert "refundable" in dumper_of(TransactionSchema())(Thing(whole))
    del whole["refundable_minor"]
    assert "refundable" not in dumper_of(TransactionSchema())(Thing(whole))


class Inner(Schema):
    at = Moment()


class Hooked(Schema):
    name = fields.String()

    @post_dump
    def shout(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {name: str(value).upper() for name, value in data.items()}


class Odd(Schema):
    """Features that a dumper must know or leave to the field."""

    as_text = fields.Integer(as_string=True)
    many = fields.Nested(Inner(many=True))
    inners = fields.List(fields.Nested(Inner))
    hooked = fields.Nested(Hooked)
    numbers = fields.List(fields.Integer())
    hidden = fields.String(load_only=True)
    renamed = fields.String(attribute="other", data_key="shown")


class Strange(Odd):
    default = fields.String(dump_default="x")
    deep = fields.String(attribute="hooked.name")
    constant = fields.Constant("always")


@pytest.mark.parametrize("schema_class", [Odd, Strange])
def test_other_features_of_marshmallow_are_kept(schema_class: type[Schema]) -> None:
    schema = schema_class()
    one = {"as_text": 5, "many": [{"at": None}], "hooked": {"name": "n"}, "numbers": [1, "2"], "hidden": "h"}
    one |= {"inners": [{"at": None}, None, Thing({})], "other": "o"}
    for item in (one, Thing(one), Thing(one | {"many": None}), Thing({}), {}, [one], "text"):
        assert written(dumper_of(schema), item) == written(schema.dump, item)
