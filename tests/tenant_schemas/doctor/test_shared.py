"""The doctor finds row-level security and policies of `shared` that are too wide or too narrow."""

import pytest

from tenant_schemas.testing.plugin import Database
from tests.factories.doctor import assert_found_alone

BROKEN = [
    ("GRANT SELECT ON shared.users TO wallet_tenants", "policy_missing", "table shared.users"),
    ("ALTER TABLE shared.memberships DISABLE ROW LEVEL SECURITY", "row_security", "table shared.memberships"),
    ("CREATE TABLE shared.unguarded (id uuid PRIMARY KEY); ALTER TABLE shared.unguarded OWNER TO wallet_owner",
     "row_security", "table shared.unguarded"),
    ("CREATE TABLE shared.shut (id uuid); ALTER TABLE shared.shut OWNER TO wallet_owner;"
     " ALTER TABLE shared.shut ENABLE ROW LEVEL SECURITY", "policy_missing", "table shared.shut"),
    ("DROP POLICY memberships_own_rows ON shared.memberships", "policy_missing", "table shared.memberships"),
    ("CREATE POLICY all_rows ON shared.tenants TO wallet_tenants USING (true)",
     "policy_unbound", "table shared.tenants"),
    ("CREATE TABLE shared.notes (body text, about uuid REFERENCES shared.users);"
     " ALTER TABLE shared.notes OWNER TO wallet_owner; ALTER TABLE shared.notes ENABLE ROW LEVEL SECURITY;"
     " CREATE POLICY notes_for_all ON shared.notes TO wallet_tenants USING (true);"
     " GRANT SELECT ON shared.notes TO wallet_tenants", "policy_unbound", "table shared.notes"),
    ("CREATE POLICY p ON shared.memberships FOR SELECT TO tenant_eur USING (true)",
     "policy_of_other_role", "policy p on shared.memberships"),
    ("CREATE POLICY for_all ON shared.products USING (true)", "policy_of_public", "policy for_all on shared.products"),
    ("CREATE POLICY by_setting ON shared.users TO wallet_app USING (email = current_setting('app.email'))",
     "policy_not_plain", "policy by_setting on shared.users"),
    ("CREATE POLICY by_table ON shared.users TO wallet_app USING (EXISTS (SELECT FROM shared.memberships))",
     "policy_not_plain", "policy by_table on shared.users"),
    ("ALTER VIEW shared.member_directory RESET (security_barrier)", "view_open", "view shared.member_directory"),
    ("CREATE VIEW shared.everybody WITH (security_barrier) AS SELECT email FROM shared.users;"
     " ALTER VIEW shared.everybody OWNER TO wallet_owner; GRANT SELECT ON shared.everybody TO wallet_tenants",
     "view_open", "view shared.everybody"),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "check", "where"), BROKEN)
def test_what_is_broken_is_found_and_nothing_else(database: Database, statement: str, check: str, where: str) -> None:
    assert_found_alone(database, statement, check, where)
