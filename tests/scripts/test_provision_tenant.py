"""`scripts.provision_tenant` checks all tenants before it makes the first; a tenant that fails stops no other."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.factories.script_runner import Run

SHARED_LOGINS = pytest.mark.parametrize("tenant_logins", ["shared"])


def slugs(database: Database) -> set[str]:
    return {tenant.slug for tenant in database.tenants()}


@pytest.mark.both_servers
def test_so_many_are_made_and_numbered(run: Run, fresh_database: Database) -> None:
    assert run("provision_tenant", "pop", "--currency", "EUR", "--count", "3").exit_code == 0
    assert slugs(fresh_database) == {"eur", "km", "pop_1", "pop_2", "pop_3"}
    assert fresh_database.tenant("pop_2").schema_name == "pop_2_schema"
    assert_isolated(fresh_database, "pop_1", "pop_2")


@pytest.mark.both_servers
def test_a_file_makes_tenants_with_settings_of_their_own(run: Run, fresh_database: Database, tmp_path: Path) -> None:
    file = tmp_path / "tenants.csv"
    file.write_text("slug,currency,name,schema_name,also\njp,JPY,Nippon,japan,KWD USD\nus,USD,,,\n")
    assert run("provision_tenant", "--file", str(file)).exit_code == 0
    japan = fresh_database.tenant("jp")
    assert (japan.name, japan.schema_name, japan.settings["currencies"]) == ("Nippon", "japan", ["JPY", "KWD", "USD"])
    assert fresh_database.tenant("us").name == "us"


@pytest.mark.both_servers
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
    run: Run, fresh_database: Database, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "tenants.csv"
    file.write_text(text)
    result = run("provision_tenant", "--file", str(file))
    assert result.exit_code == 2
    assert said in result.output
    assert slugs(fresh_database) == {"eur", "km"}


@pytest.mark.both_servers
def test_one_that_is_there_already_is_named_and_stops_nobody(
    run: Run, fresh_database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "tenants.csv"
    file.write_text("slug,currency\none,EUR\nkm,EUR\ntwo,EUR\n")
    result = run("provision_tenant", "--file", str(file))
    assert result.exit_code == 1
    assert "'km' has that slug" in result.output
    assert slugs(fresh_database) == {"eur", "km", "one", "two"}


@SHARED_LOGINS
def test_a_tenant_is_provisioned_and_can_be_logged_in_to(run: Run) -> None:
    result = run("provision_tenant", "jp", "--currency", "JPY", "--schema-name", "japan", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["schemaName"] == "japan"
    url = run("database_url", "--tenant", "jp").output.strip()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_user, current_schema()").fetchone() == ("tenant_jp", "japan")


@SHARED_LOGINS
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("eur", "--currency", "EUR"), 1),
        (("pg_x", "--currency", "EUR"), 2),
        (("wallet", "--currency", "EUR"), 2),
        (("new", "--currency", "XXX"), 2),
        (("new", "--currency", "eur"), 2),
        (("new",), 2),
    ],
)
def test_what_cannot_be_provisioned_is_refused_with_a_reason(run: Run, arguments: Any, code: int) -> None:
    result = run("provision_tenant", *arguments)
    assert result.exit_code == code
    assert result.output
    assert "Traceback" not in result.output


@SHARED_LOGINS
def test_a_tenant_may_have_several_currencies_from_the_start_or_later(run: Run, fresh_database: Database) -> None:
    made = run("provision_tenant", "jp", "--currency", "JPY", "--also", "KWD", "--locale", "ja-JP", "--json")
    assert made.exit_code == 0, made.output
    expected = {"currency": "JPY", "currencies": ["JPY", "KWD"], "locale": "ja_JP"}
    assert json.loads(made.output)["settings"] == expected
    assert run("configure_tenant", "jp", "--also", "USD", "--also", "JPY").exit_code == 0
    assert fresh_database.tenant("jp").settings == expected | {"currencies": ["JPY", "KWD", "USD"]}
    assert run("configure_tenant", "km", "--locale", "bs_BA").exit_code == 0
    assert fresh_database.tenant("km").settings == {"currency": "BAM", "locale": "bs_BA"}
