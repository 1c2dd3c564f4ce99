"""The backup policy names every column with a user's id, and masks every text about a person."""

import pytest

from app.backup_policy import BACKUP_POLICY, MASKS, bundle_keys
from tenant_schemas.backup.signature import derived_key
from tenant_schemas.testing.plugin import Database
from tests.conftest import settings_for
from tests.factories.backups import KEY_FILE, KEYS

pytestmark = pytest.mark.both_servers


def test_every_column_of_ids_names_people_or_is_known_not_to(fresh_database: Database) -> None:
    others = {
        *("wallets.id", "wallet_transactions.id", "wallet_transactions.wallet_id", "wallet_transactions.refund_of"),
        *("wallet_transactions.hold_id", "ledger_entries.transaction_id", "audit_log.id", "audit_log.wallet_id"),
        *("holds.id", "holds.wallet_id", "order_payments.transaction_id", "order_payments.hold_id", "orders.id"),
        *("orders.wallet_id", "orders.payment_id", "orders.refund_id", "order_items.order_id"),
        *("order_items.product_id", "documents.id", "documents.wallet_id"),
        *("events.id", "events.wallet_id", "events.subject_id", "events_head.feed_id", "event_cursors.feed_id"),
        "event_cursors.lease_by",
        *("command_outcomes.id", "command_outcomes.key_id", "command_outcomes.subject_id", "command_outcomes.event_id"),
        *("webhook_endpoints.id", "webhook_endpoints.feed_id", "webhook_endpoints.lease_by", "webhook_lanes.key"),
        *("webhook_parked.event_id", "webhook_replays.id", "webhook_attempts.id", "webhook_attempts.event_id"),
        "webhook_replays.ledger_wallet_id",
        *(f"webhook_{kind}.endpoint_id" for kind in ("lanes", "parked", "replays", "attempts")),
        *("wallet_proofs.wallet_id", "proof_findings.wallet_id", "proof_progress.partial_id", "proof_progress.feed_id"),
    }
    query = """SELECT table_name || '.' || column_name FROM information_schema.columns JOIN pg_tables
        ON tablename = table_name AND schemaname = table_schema
        WHERE table_schema = 'km_schema' AND data_type = 'uuid'"""
    found = {name for (name,) in fresh_database.as_superuser().execute(query)}
    named = {f"{table}.{column}" for table, columns in BACKUP_POLICY.user_id_columns.items() for column in columns}
    assert named - {"audit_log.subject"} == found - others
    assert others <= found


def test_every_mask_is_of_a_column_that_there_is_and_every_text_is_looked_at(fresh_database: Database) -> None:
    """A new column of text must be masked, or listed here as harmless."""
    harmless = {
        *("alembic_version.version_num", "wallets.currency", "wallets.status", "wallet_transactions.currency"),
        *("wallet_transactions.type", "ledger_accounts.code", "ledger_accounts.name", "ledger_accounts.kind"),
        *("ledger_accounts.normal_side", "ledger_entries.debit_account", "ledger_entries.credit_account"),
        *("wallet_transactions.debit_account", "wallet_transactions.credit_account"),
        *("holds.currency", "holds.status", "orders.currency", "orders.status", "order_items.sku", "order_items.name"),
        *("credit_policies.currency", "reconciliations.currency", "reconciliations.refused_by", "audit_log.action"),
        *("audit_log.actor_kind", "audit_log.refusal", "documents.status", "documents.failure"),
        *("bulk_requests.idempotency_key", "bulk_requests.request_fingerprint"),  # not cloned
        *("audit_refusals.action", "audit_refusals.actor_kind", "audit_refusals.refusal"),  # not cloned
        *("events.type", "events.data", "events.traceparent", "event_cursors.sink"),  # not cloned
        *("command_outcomes.source", "command_outcomes.command_id", "command_outcomes.type"),  # not cloned
        *("command_outcomes.outcome", "command_outcomes.code", "command_outcomes.detail"),
        # Not cloned either.
        *(
            f"webhook_endpoints.{name}"
            for name in ("url", "description", "payload", "delivery_order", "status", "disabled_reason")
        ),
        *(f"webhook_attempts.{name}" for name in ("type", "source", "outcome", "failure", "answer")),
        "webhook_parked.type",
        *("proof_findings.kind", "proof_findings.subject", "proof_findings.finding"),  # not cloned
        *("proof_progress.phase", "proof_progress.place"),  # not cloned
    }
    query = """SELECT table_name || '.' || column_name, data_type FROM information_schema.columns JOIN pg_tables
        ON tablename = table_name AND schemaname = table_schema WHERE table_schema = 'km_schema'"""
    columns = dict(fresh_database.as_superuser().execute(query).fetchall())
    masked = {f"{table}.{column}" for table, masks in MASKS.items() for column in masks}
    shared = {name for name in masked if name.split(".")[0] in {BACKUP_POLICY.users, BACKUP_POLICY.members}}
    assert masked - shared - set(columns) == set()
    texts = {name for name, kind in columns.items() if kind in {"text", "jsonb", "character varying"}}
    assert texts - masked == harmless


def test_bundles_are_signed_with_the_key_file_or_else_with_the_secret(database: Database) -> None:
    """The secret's key stays known, so bundles from before there was a file still open."""
    of_secret = derived_key(database.tenant_secret)
    assert bundle_keys(settings_for(database)).keys == [of_secret]
    assert bundle_keys(settings_for(database, backup_key_file=str(KEY_FILE))).keys == [*KEYS.keys, of_secret]
