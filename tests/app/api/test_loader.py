"""Valid data is loaded as marshmallow alone would load it; all other data is left to marshmallow."""

from typing import Any

import marshmallow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import fields

from app.api.fields import Flag, Schema, Text
from app.api.loader import loader_of
from app.api.requests import faults_of
from app.ledger.schemas import OwnDryRunQuery, OwnTransactionListQuery, PaymentSchema
from app.members.schemas import AddMemberSchema
from tests.factories.schemas import api_schemas, bodies

SCHEMAS = list(api_schemas())
# marshmallow loads them alone: their hooks are not known.
LEFT: set[str] = set()


def outcome(schema: Schema, data: Any) -> Any:
    """What `load` returns, or each fault with its code."""
    try:
        loaded = schema.load(data)
    except marshmallow.ValidationError as error:
        return sorted(map(repr, faults_of(error.messages)))
    return loaded, list(loaded)


def by_marshmallow(schema: Schema, data: Any) -> Any:
    """The same without our `Schema.load`, also in nested schemas."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(Schema, "load")
        return outcome(schema, data)


@pytest.mark.parametrize("schema_class", SCHEMAS, ids=lambda each: f"{each.__module__}.{each.__name__}")
def test_every_schema_loads_as_by_marshmallow(schema_class: type[Schema]) -> None:
    schema = schema_class()

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=bodies(schema))
    def compare(data: Any) -> None:
        assert outcome(schema, data) == by_marshmallow(schema, data)

    compare()


def test_the_schemas_of_all_features_are_compared() -> None:
    assert len(SCHEMAS) > 60
    assert {PaymentSchema, OwnDryRunQuery, AddMemberSchema} < set(SCHEMAS)


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (PaymentSchema(), {"amount": "12.50", "orderId": "order-1", "description": "đ"}),
        (OwnDryRunQuery(), {}),
        (OwnDryRunQuery(), {"dryRun": "true", "currency": "EUR"}),
        (OwnTransactionListQuery(), {"from": "2026-01-31T12:00:00Z", "to": "2026-02-01T12:00:00Z", "limit": "7"}),
    ],
)
def test_the_usual_requests_do_not_need_marshmallow(schema: Schema, data: dict[str, Any]) -> None:
    loaded = loader_of(schema)(data)
    assert loaded is not None
    assert loaded == by_marshmallow(schema, data)[0]


def test_a_rule_of_the_whole_schema_is_asked_too() -> None:
    period = {"from": "2026-02-01T12:00:00Z", "to": "2026-01-31T12:00:00Z"}
    with pytest.raises(marshmallow.ValidationError, match="must be later"):
        OwnTransactionListQuery().load(period)


def test_only_the_named_schemas_are_left_to_marshmallow() -> None:
    """So that a new hook shows its cost."""

    def is_left(schema: Schema) -> bool:
        try:
            return loader_of(schema)({}) is None and not any(f.required for f in schema.load_fields.values())
        except marshmallow.ValidationError:
            return False

    def has_unknown_hooks(schema: Schema) -> bool:
        return any(schema._hooks[tag] for tag in ("validates", "pre_load", "post_load"))

    made = [each() for each in SCHEMAS]
    assert {type(each).__name__ for each in made if has_unknown_hooks(each)} == LEFT
    assert {type(each).__name__ for each in made if is_left(each)} <= {"ProblemSchema"} | LEFT


class Inner(Schema):
    name = Text(max_length=5, required=True)


class Odd(Schema):
    """Features that a loader must know or leave."""

    renamed = fields.Integer(attribute="other", data_key="shown", validate=lambda value: value > 0)
    inner = fields.Nested(Inner)
    inners = fields.List(fields.Nested(Inner()))
    nothing = Flag(allow_none=True, load_default=None)
    shown_only = fields.String(dump_only=True)


class Strange(Odd):
    made = fields.String(load_default=lambda: "made")
    deep = fields.String(attribute="one.two")


@given(
    data=st.dictionaries(
        st.sampled_from(["shown", "other", "renamed", "inner", "inners", "nothing", "shown_only", "made", "deep"]),
        st.sampled_from([1, -1, "2", None, True, {"name": "x"}, {"name": "too long"}, {}, [{"name": "x"}], [{}], "x"]),
    ),
    schema_class=st.sampled_from([Odd, Strange]),
    options=st.sampled_from(
        [{}, {"partial": True}, {"unknown": "exclude"}, {"unknown": "include"}, {"only": ("inner",)}]
    ),
)
@settings(max_examples=300, deadline=None, database=None)
def test_other_features_of_marshmallow_are_kept(data: Any, schema_class: type[Schema], options: dict[str, Any]) -> None:
    schema = schema_class(**options)
    assert outcome(schema, data) == by_marshmallow(schema, data)


def test_a_copy_of_a_schema_has_its_own_fields() -> None:
    """A nested field copies the schema, perhaps after its first load, and may leave fields out."""
    whole = Inner()
    whole.load({"name": "x"})

    class Outer(Schema):
        inner = fields.Nested(whole, exclude=("name",))

    assert outcome(Outer(), {"inner": {}}) == ({"inner": {}}, ["inner"])
    assert outcome(Outer(), {"inner": {"name": "x"}}) == by_marshmallow(Outer(), {"inner": {"name": "x"}})
