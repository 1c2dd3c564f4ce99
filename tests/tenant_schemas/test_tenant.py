"""The one rule of names, and the tenant as a value."""

from dataclasses import FrozenInstanceError, replace

import pytest

from tenant_schemas.errors import NameRefused, TenancyError
from tenant_schemas.tenant import (
    DISPLAY_NAME_MAX_LENGTH,
    SCHEMA_NAME_MAX_LENGTH,
    SLUG_MAX_LENGTH,
    TenantStatus,
    check_display_name,
    check_schema_name,
    check_slug,
    default_schema_name,
    is_name,
    role_name_of,
)
from tenant_schemas.testing.plugin import Database

POSTGRESQL_IDENTIFIER_BYTES = 63

NOT_NAMES = [
    "",
    " ",
    "Eur",
    "EUR",
    "1eur",
    "_eur",
    "eur-km",
    "eur km",
    "eur.km",
    "eur\n",
    "eur\0",
    "éur",
    "еur",  # the first letter is Cyrillic
    "eur１",  # a full-width digit
    "ſ",  # becomes "S" in upper case
    'eur"',
    "eur'; DROP SCHEMA shared; --",
    "eur/km",
    "%",
]


@pytest.mark.parametrize("name", NOT_NAMES)
def test_what_is_no_name_is_refused_as_slug_and_as_schema(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(NameRefused):
        check_slug(name)
    with pytest.raises(NameRefused):
        check_schema_name(name)


@pytest.mark.parametrize("name", ["pg_x", "pg_", "pg_catalog", "pg_temp", "public", "shared", "information_schema"])
def test_names_that_postgresql_or_the_engine_keep_are_refused(name: str) -> None:
    with pytest.raises(NameRefused, match="reserved"):
        check_slug(name)
    with pytest.raises(NameRefused, match="reserved"):
        check_schema_name(name)


@pytest.mark.parametrize("name", ["e", "eur", "km", "eur_2", "pgx", "shared_2", "x" * SLUG_MAX_LENGTH])
def test_a_name_is_returned_as_it_is(name: str) -> None:
    assert check_slug(name) == name
    assert check_schema_name(name) == name


def test_a_name_may_be_as_long_as_the_rule_says_and_no_longer() -> None:
    assert check_slug("x" * SLUG_MAX_LENGTH)
    assert check_schema_name("x" * SCHEMA_NAME_MAX_LENGTH)
    with pytest.raises(NameRefused, match=str(SLUG_MAX_LENGTH)):
        check_slug("x" * (SLUG_MAX_LENGTH + 1))
    with pytest.raises(NameRefused, match=str(SCHEMA_NAME_MAX_LENGTH)):
        check_schema_name("x" * (SCHEMA_NAME_MAX_LENGTH + 1))


def test_the_longest_names_are_whole_in_postgresql() -> None:
    longest = "x" * SLUG_MAX_LENGTH
    assert len(role_name_of(longest)) <= POSTGRESQL_IDENTIFIER_BYTES
    assert check_schema_name(default_schema_name(longest)) == default_schema_name(longest)
    assert len("x" * SCHEMA_NAME_MAX_LENGTH + "_restored_20260101") <= POSTGRESQL_IDENTIFIER_BYTES


def test_the_first_segment_of_a_route_is_no_slug_but_may_be_a_schema() -> None:
    with pytest.raises(NameRefused, match="route"):
        check_slug("wallet", frozenset({"wallet"}))
    assert check_slug("wallet") == "wallet"
    assert check_schema_name("wallet") == "wallet"


def test_a_refused_name_is_a_tenancy_error() -> None:
    assert issubclass(NameRefused, TenancyError)


def test_equal_rows_are_equal_tenants_and_a_changed_row_is_another(database: Database) -> None:
    """The pools are keyed by it: a new epoch, setting or schema must be another value."""
    eur, again, km = database.tenant("eur"), database.tenant("eur"), database.tenant("km")
    assert eur == again
    assert hash(eur) == hash(again)
    assert eur != km
    changes = ({"login_epoch": 2}, {"settings": {}}, {"schema_name": "other"}, {"status": TenantStatus.SUSPENDED})
    for changed in changes:
        assert replace(eur, **changed) != eur


def test_a_tenant_can_not_be_changed_in_place(database: Database) -> None:
    with pytest.raises(FrozenInstanceError):
        database.tenant("eur").slug = "km"  # type: ignore[misc]


def test_only_an_active_tenant_is_active(database: Database) -> None:
    eur = database.tenant("eur")
    assert {status: replace(eur, status=status).is_active for status in TenantStatus} == {
        TenantStatus.ACTIVE: True,
        TenantStatus.SUSPENDED: False,
        TenantStatus.ARCHIVED: False,
    }


@pytest.mark.parametrize(
    "name", ["", "a\0", "a\nb", "a\x1b[2Jb", "a\u202eb", "a\u200db", "\u3164", "x" * (DISPLAY_NAME_MAX_LENGTH + 1)]
)
def test_a_display_name_can_be_shown_as_it_is(name: str) -> None:
    for right in ("Konvertibilna marka, č 漢", "می\u200cخو"):
        assert check_display_name(right) == right
    with pytest.raises(NameRefused, match="display name"):
        check_display_name(name)
