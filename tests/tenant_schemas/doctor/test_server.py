"""Each unsound setting of the server, and each other database, is one finding."""

import pytest

from tenant_schemas.doctor import Severity
from tenant_schemas.doctor.server import check_settings
from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import EXEMPT, broken, findings, seen

pytestmark = pytest.mark.changes_roles

SOUND = {
    "server_version_num": "180000",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "data_checksums": "on",
    "password_encryption": "scram-sha-256",
    "log_statement": "none",
    "max_prepared_transactions": "0",
    "listen_addresses": "localhost, 127.0.0.1",
    "ssl": "off",
}


def test_sound_settings_have_no_findings() -> None:
    assert list(check_settings(SOUND)) == []
    for local in ({"synchronous_commit": "local"}, {"listen_addresses": "*", "ssl": "on"}, {"log_statement": "ddl"}):
        assert list(check_settings(SOUND | local)) == []


@pytest.mark.parametrize(
    ("name", "value", "check", "severity"),
    [
        ("server_version_num", "140012", "version", Severity.ERROR),
        ("server_version_num", "190000", "version", Severity.ERROR),
        ("fsync", "off", "fsync", Severity.ERROR),
        ("full_page_writes", "off", "full_page_writes", Severity.ERROR),
        ("synchronous_commit", "off", "synchronous_commit", Severity.ERROR),
        ("zero_damaged_pages", "on", "zero_damaged_pages", Severity.ERROR),
        ("ignore_checksum_failure", "on", "ignore_checksum_failure", Severity.ERROR),
        ("allow_system_table_mods", "on", "allow_system_table_mods", Severity.ERROR),
        ("lo_compat_privileges", "on", "lo_compat_privileges", Severity.ERROR),
        ("data_checksums", "off", "data_checksums", Severity.WARNING),
        ("password_encryption", "md5", "password_encryption", Severity.WARNING),
        ("log_statement", "all", "log_statement", Severity.WARNING),
        ("log_statement", "mod", "log_statement", Severity.WARNING),
        ("max_prepared_transactions", "2", "max_prepared_transactions", Severity.WARNING),
        ("listen_addresses", "*", "ssl", Severity.WARNING),
    ],
)
def test_a_setting_that_is_not_sound_is_one_finding(name: str, value: str, check: str, severity: Severity) -> None:
    assert [(one.check, one.severity) for one in check_settings(SOUND | {name: value})] == [(check, severity)]


def test_a_server_with_fewer_connections_than_one_process_may_open_is_found(database: Database) -> None:
    with database.admin_engine().connect() as connection:
        assert findings(connection, max_connections=10) == []
        assert [one.check for one in findings(connection, max_connections=100_000)] == ["max_connections"]


def test_other_databases_that_are_open_are_found(database: Database) -> None:
    opened = "GRANT CONNECT ON DATABASE template1 TO PUBLIC"
    with broken(database, opened) as connection:
        found = seen(connection, exempt=EXEMPT - {"other_database"})
    assert ("other_database", "database template1") in found
    closed = "REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC"
    with broken(database, closed) as connection:
        found = seen(connection, exempt=EXEMPT - {"other_database"})
    assert not {("other_database", f"database {name}") for name in ("postgres", "template1")} & set(found)
