"""`flask wallets initialize` opens a wallet for every member that has none."""

from pathlib import Path

import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database
from tests.app.opening_balances.conftest import Books, OldSystem
from tests.factories.people import People, Person


@pytest.fixture
def old(fresh_app: Flask, tmp_path: Path) -> OldSystem:
    return OldSystem(fresh_app, tmp_path)


@pytest.fixture
def members(fresh_app: Flask) -> list[Person]:
    """Three in eur, of which one has a wallet, and two of them in km."""
    people = People(fresh_app)
    members = [people.make(eur="member", km="member"), people.make(eur="admin", km="member"), people.make(eur="member")]
    people.wallet(members[2], "eur", balance_minor=100)
    return members


def test_every_member_of_every_active_tenant_gets_a_wallet_and_only_one(
    old: OldSystem, members: list[Person], fresh_database: Database
) -> None:
    eur, km = Books(fresh_database, "eur"), Books(fresh_database, "km")
    for opened in ((2, 2), (0, 0)):
        result = old.run("initialize", "--batch", "1")
        assert result.exit_code == 0, result.output
        assert f"eur: {opened[0]} wallets opened in EUR" in result.output
        assert f"km: {opened[1]} wallets opened in BAM" in result.output
        assert [eur.wallet(person, "currency") for person in members] == [["EUR"]] * 3
        assert [km.wallet(person, "currency") for person in members] == [["BAM"], ["BAM"], []]
    assert eur.wallet(members[2], "balance_minor") == [100]
    assert old.run("audit").exit_code == 0


def test_a_suspended_tenant_is_left_out_unless_it_is_named(
    old: OldSystem, members: list[Person], fresh_database: Database
) -> None:
    fresh_database.as_superuser().execute("UPDATE shared.tenants SET status = 'suspended' WHERE slug = 'km'")
    assert "km" not in old.run("initialize").output
    assert "km: 2 wallets opened in BAM" in old.run("initialize", "--tenant", "km").output


def test_a_currency_can_be_chosen_and_a_tenant_without_it_is_named(
    old: OldSystem, members: list[Person], fresh_database: Database
) -> None:
    result = old.run("initialize", "--currency", "JPY")
    assert result.exit_code == 1
    assert "eur: 3 wallets opened in JPY" in result.output
    assert "km: the tenant does not allow wallets in JPY" in result.output
    assert Books(fresh_database, "eur").wallet(members[2], "currency") == ["EUR", "JPY"]


def test_a_dry_run_opens_nothing(old: OldSystem, members: list[Person], fresh_database: Database) -> None:
    result = old.run("initialize", "--dry-run", "--batch", "1")
    assert "eur: 2 wallets opened in EUR (dry run: rolled back)" in result.output
    assert Books(fresh_database, "eur").wallet(members[0], "id") == []


def test_wallets_open_with_the_limit_of_the_policy(
    old: OldSystem, members: list[Person], fresh_database: Database
) -> None:
    eur = Books(fresh_database, "eur")
    eur.connection.execute("SELECT credit_policy_set_v1('EUR', 2500, NULL, NULL, 'test')")
    assert old.run("initialize").exit_code == 0
    assert eur.wallet(members[0], "credit_limit_minor") == [2500]
    assert old.run("audit").exit_code == 0
