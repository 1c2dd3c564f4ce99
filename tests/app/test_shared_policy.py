"""What the bundle of the schema shared has, and what a restored one does not do again."""

from pathlib import Path
from typing import Any

from flask import Flask

from app.shared_policy import SHARED_POLICY
from tenant_schemas.restore.shared_restore import restore_shared
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import destination
from tests.factories.installations import lose, take_shared
from tests.factories.people import People

# Every table of the schema shared. Add a new one here once you have decided, in SHARED_POLICY, whether its rows belong
# to the bundle; without a decision they do.
DECIDED = {
    *("tenants", "users", "memberships", "former_members", "invitations", "account_mails", "second_factors"),
    *("recovery_codes", "api_keys", "provisionings", "categories", "products", "product_prices", "migration_runs"),
    *("migration_outcomes", "secret_checks"),
    *("sessions", "refresh_tokens", "attempt_counts", "spare_schemas", "schema_fingerprints", "schema_stamps"),
    "tenant_proofs",
}
MAIL = """
    INSERT INTO shared.account_mails
        (id, kind, recipient, user_id, invitation_id, token_hash, expires_at, next_attempt_at)
    VALUES (gen_random_uuid(), %s, 'a@example.com', %s, %s, sha256(uuid_send(gen_random_uuid())),
        now() + interval '1 day', now())"""
INVITATION = """
    INSERT INTO shared.invitations (id, tenant_id, email, role, expires_at)
    SELECT gen_random_uuid(), id, 'a@example.com', 'member', now() + interval '1 day'
    FROM shared.tenants WHERE slug = 'km' RETURNING id"""


def test_it_is_decided_for_every_table(database: Database) -> None:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'shared' AND tablename <> 'alembic_version'"
    tables = {name for (name,) in database.as_superuser().execute(query)}
    assert tables == DECIDED
    assert tables >= SHARED_POLICY.left_out.keys() | SHARED_POLICY.conditions.keys() | SHARED_POLICY.incidental


def test_links_of_invitations_work_on_and_no_waiting_mail_is_sent(
    fresh_database: Database, fresh_app: Flask, tmp_path: Path
) -> None:
    superuser = fresh_database.as_superuser()
    user_id = People(fresh_app).make(km="admin").user_id
    ((invitation_id,),) = superuser.execute(INVITATION)
    superuser.execute(MAIL, ("invitation", None, invitation_id))
    superuser.execute(MAIL, ("password_reset", user_id, None))

    def mails() -> list[tuple[Any, ...]]:
        query = "SELECT kind, token_hash IS NOT NULL, next_attempt_at FROM shared.account_mails"
        return superuser.execute(query).fetchall()

    bundle = take_shared(fresh_database, tmp_path)
    lose(fresh_database)
    restore_shared(destination(fresh_database), SHARED_POLICY, bundle, {})
    assert mails() == [("invitation", True, None)]
