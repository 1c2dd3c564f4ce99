"""The fixtures of the tests on two servers: each run uses its own server, and the two are separate."""

from collections.abc import Mapping

import psycopg
import pytest
from flask import Flask

from tenant_schemas.testing.plugin import Database, assert_isolated
from tests.factories.people import People
from tests.servers.fixtures import GIVEN

pytestmark = pytest.mark.both_servers


def major_version(database: Database) -> str:
    """The version of a database's server. A template is never connected to."""
    with psycopg.connect(database.url()) as superuser:
        return str(superuser.info.server_version // 10_000)


def test_each_fixture_is_of_the_server_of_this_run(
    database: Database, fresh_database: Database, template: Database, server_version: str
) -> None:
    assert database.server_url == fresh_database.server_url == template.server_url
    assert major_version(database) == major_version(fresh_database)
    assert server_version in {major_version(database), "given"}
    assert {tenant.slug for tenant in database.tenants()} == {"eur", "km"}


def test_the_application_is_on_that_server(app: Flask, people: People, database: Database) -> None:
    member = people.make(eur="member")
    with psycopg.connect(database.url()) as superuser:
        assert superuser.execute("SELECT FROM shared.users WHERE id = %s", (member.user_id,)).fetchall()
    assert app is people.app


def test_tenants_are_isolated_on_that_server(database: Database) -> None:
    assert_isolated(database, "eur", "km")


@pytest.mark.skipif(bool(GIVEN), reason="TEST_DATABASE_URL gives one server")
def test_the_other_database_is_on_the_other_server(
    fresh_database: Database, other_database: Database, both_servers: Mapping[str, Database]
) -> None:
    assert {major_version(fresh_database), major_version(other_database)} == {"15", "18"} == set(both_servers)
