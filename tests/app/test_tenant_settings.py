"""A tenant's settings are checked before every write, by every writer, and each fault is named."""

from typing import Any

import pytest

from app.errors import Invalid
from app.tenant_settings import changed_settings, new_settings, stored_settings

WHOLE = {
    "currency": "EUR",
    "currencies": ["EUR", "USD"],
    "locale": "de_AT",
    "rate_limit": "600/minute",
    "caller_rate_limit": "60/minute",
    "max_concurrent_requests": 4,
    "max_body_bytes": 1000,
    "statement_timeout_ms": 500,
    "idle_in_transaction_timeout_ms": 500,
    "max_connections": 2,
    "former_member_days": 3650,
    "require_second_factor": True,
}


def faults(error: Invalid) -> dict[str, str]:
    return {fault["field"]: fault["code"] for fault in error.members["errors"]}


def test_all_settings_together_are_kept_as_they_are() -> None:
    assert new_settings(WHOLE) == stored_settings(WHOLE) == WHOLE


def test_a_currency_is_enough_and_nothing_less_is() -> None:
    assert new_settings({"currency": "BAM"}) == {"currency": "BAM"}
    with pytest.raises(Invalid) as caught:
        new_settings({})
    assert faults(caught.value) == {"currency": "required"}


def test_a_locale_is_kept_in_one_form() -> None:
    assert new_settings({"currency": "JPY", "locale": "ja-JP"})["locale"] == "ja_JP"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("currency", "eur", "not_a_currency"),
        ("currency", "XAU", "not_a_currency"),
        ("currency", None, "required"),
        ("currencies", "USD", "not_a_list"),
        ("currencies", ["USD", "XXX"], "not_a_currency"),
        ("locale", "x_Y", "not_a_locale"),
        ("locale", "", "not_a_locale"),
        ("locale", 7, "not_a_locale"),
        ("require_second_factor", "yes", "not_a_boolean"),
        *(
            ("rate_limit", value, "not_a_rate")
            for value in (
                "",
                "600",
                "0/minute",
                "-1/minute",
                "6/week",
                "6/minute ",
                "6/minute\n",
                "٦/minute",
                600,
                "6/m",
            )
        ),
        ("rate_limit", "1/minute;9/hour", "not_a_rate"),
        ("caller_rate_limit", "lots", "not_a_rate"),
        *(
            (name, value, code)
            for name in list(WHOLE)[5:-1]
            for value, code in ((0, "out_of_range"), (-1, "out_of_range"), (2**31, "out_of_range"))
        ),
        *(
            ("max_body_bytes", value, code)
            for value, code in (
                ("5", "not_a_number"),
                (5.0, "not_a_number"),
                (True, "not_a_number"),
                (None, "required"),
            )
        ),
        ("colour", "green", "unknown_field"),
    ],
)
def test_what_is_wrong_is_refused_by_name_wherever_it_is_written(name: str, value: Any, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        new_settings({"currency": "EUR"} | {name: value})
    assert {field.split(".")[0]: code for field, code in faults(caught.value).items()} == {name: code}
    if value is not None:
        with pytest.raises(Invalid):
            changed_settings(WHOLE, {name: value})


def test_all_faults_are_named_together() -> None:
    with pytest.raises(Invalid) as caught:
        new_settings({"rate_limit": "x", "max_connections": 0, "colour": 1})
    assert set(faults(caught.value)) == {"currency", "rate_limit", "max_connections", "colour"}


def test_changes_are_told_alone_and_none_takes_away() -> None:
    assert changed_settings(WHOLE, {"rate_limit": None, "max_connections": 3}) == {
        "rate_limit": None,
        "max_connections": 3,
    }


def test_what_is_broken_can_be_mended_but_not_left() -> None:
    broken = {"currency": "EUR", "rate_limit": "much", "colour": "green"}
    assert changed_settings(broken, {"rate_limit": None}) == {"rate_limit": None}
    with pytest.raises(Invalid, match="rate_limit"):
        changed_settings(broken, {"locale": "en"})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"currency": "USD"}, "currency_kept"),
        ({"currency": None}, "required"),
        ({"currencies": ["EUR"]}, "currency_kept"),
        ({"currencies": None}, "currency_kept"),
    ],
)
def test_no_currency_is_changed_or_taken_away(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        changed_settings(WHOLE, changes)
    assert list(faults(caught.value).values()) == [code]


def test_a_currency_may_be_added() -> None:
    assert changed_settings({"currency": "EUR"}, {"currencies": ["EUR", "USD"]}) == {"currencies": ["EUR", "USD"]}
