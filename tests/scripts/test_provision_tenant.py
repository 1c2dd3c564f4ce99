"""Many tenants from a count or a file: all checked before the first is made, and one that fails stops nobody."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scripts import provision_tenant
from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.conftest import SECRET_KEY, SIGNING_KEYS

pytestmark = pytest.mark.both_servers


@pytest.fixture
def run(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    settings = {
        "DATABASE_URL": fresh_database.app_url,
        "ADMIN_DATABASE_URL": fresh_database.admin_url,
        "TENANT_SECRET": fresh_database.tenant_secret,
        "SECRET_KEY": SECRET_KEY,
        "SIGNING_KEYS": SIGNING_KEYS,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: CliRunner().invoke(provision_tenant.main, [str(one) for one in arguments])


def slugs(database: Database) -> set[str]:
    return {tenant.slug for tenant in database.tenants()}


def test_so_many_are_made_and_numbered(run: Callable[..., Result], fresh_database: Database) -> None:
    assert run("pop", "--currency", "EUR", "--count", 3).exit_code == 0
    assert slugs(fresh_database) == {"eur", "km", "pop_1", "pop_2", "pop_3"}
    assert fresh_database.tenant("pop_2").schema_name == "pop_2_schema"
    assert_isolated(fresh_database, "pop_1", "pop_2")


def test_a_file_makes_tenants_with_settings_of_their_own(
    run: Callable[..., Result], fresh_database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.csv"
    file.write_text("slug,currency,name,schema_name,also\njp,JPY,Nippon,japan,KWD USD\nus,USD,,,\n")
    assert run("--file", file).exit_code == 0
    japan = fresh_database.tenant("jp")
    assert (japan.name, japan.schema_name, japan.settings["currencies"]) == ("Nippon", "japan", ["JPY", "KWD", "USD"])
    assert fresh_database.tenant("us").name == "us"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slug,currency\nfine,EUR\nNo,EUR\nadmin,EUR\n", "Row 2"),
        ("slug,currency\nfine,EUR\nother,XXY\n", "Row 2"),
        ("slug,currency\nfine,EUR\nfine,EUR\n", "twice"),
        ("slug,currency\nfine,EUR,more\n", "cells"),
        ("slug,currency,colour\nfine,EUR,red\n", "header"),
        ("slug\nfine\n", "header"),
        ("", "header"),
    ],
)
def test_a_file_with_a_fault_makes_nobody_and_says_where(
    run: Callable[..., Result], fresh_database: Database, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "tenants.csv"
    file.write_text(text)
    result = run("--file", file)
    assert result.exit_code == 2
    assert said in result.output
    assert slugs(fresh_database) == {"eur", "km"}


def test_one_that_is_there_already_is_named_and_stops_nobody(
    run: Callable[..., Result], fresh_database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.csv"
    file.write_text("slug,currency\none,EUR\nkm,EUR\ntwo,EUR\n")
    result = run("--file", file)
    assert result.exit_code == 1
    assert "'km' has that slug" in result.output
    assert slugs(fresh_database) == {"eur", "km", "one", "two"}
