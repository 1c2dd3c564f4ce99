"""The wallet application's part of backups, restores and clones: what proves a tenant's data, how its hash chains are
made again, how a clone masks it, and which keys sign its bundles. A bundle may be older than this code, so nothing here
assumes the head revision.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from app.audit.service import entry_json
from app.auth.actors import SYSTEM
from app.config import BackupSettings, Settings
from app.errors import Invalid
from app.tenant_settings import stored_settings
from tenant_schemas.backup.policy import BackupPolicy
from tenant_schemas.backup.signature import BundleKeys, derived_key, read_key_file
from tenant_schemas.errors import RestoreRefused
from tenant_schemas.restore.clone import SALT
from tenant_schemas.schema_diff.accepted import NOTHING_ACCEPTED, AcceptedDrift, read_accepted_drift

Connection = psycopg.Connection[Any]

_WALLETS: Final = """
    SELECT currency, count(*), sum(balance_minor)::text, sum(held_minor)::text, sum(credit_limit_minor)::text,
        encode(sha256(string_agg(uuid_send(id) || int8send(last_seq) || last_hash, ''::bytea ORDER BY id)), 'hex')
    FROM wallets GROUP BY currency ORDER BY currency"""
_LEDGER: Final = """
    SELECT currency, debit_account, credit_account, count(*), sum(amount_minor)::text
    FROM movement_entries GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
# Before revision 0009 all entries were in ledger_entries.
_LEDGER_OF_ENTRIES: Final = """
    SELECT t.currency, e.debit_account, e.credit_account, count(*), sum(e.amount_minor)::text
    FROM ledger_entries e JOIN wallet_transactions t ON t.id = e.transaction_id GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_HAS_OWN_ENTRIES: Final = "SELECT to_regclass('movement_entries') IS NOT NULL"
_AUDIT_LOG: Final = "SELECT last_seq, encode(last_hash, 'hex') FROM audit_chain"
_NEWEST_AUDIT: Final = r"""
    SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proname ~ '^ledger_audit_v\d+$'
    ORDER BY length(proname) DESC, proname DESC LIMIT 1"""
_HAS_FEED: Final = "SELECT to_regclass('events_head') IS NOT NULL"
_HAS_FEED_AUDIT: Final = "SELECT to_regprocedure('events_audit_v1()') IS NOT NULL"
_AUDIT_FEED: Final = "SELECT wallet_id, event_id, finding FROM events_audit_v1() ORDER BY wallet_id, event_id"
_LAST_CHANGE: Final = "SELECT max(last_posted_at) FROM wallets"
_IS_PROVEN: Final = "SELECT to_regclass('wallet_proofs') IS NOT NULL"
_FORGET_PROOFS: Final = (
    "DELETE FROM wallet_proofs",
    "DELETE FROM proof_findings",
    "DELETE FROM proof_progress",
)
_IS_CHAINED: Final = "SELECT to_regclass('audit_chain') IS NOT NULL"


def prove(connection: Connection) -> dict[str, Any]:
    """Totals by currency and account, and the heads of all chains. Plain SQL on tables, because the backup role may not
    call a tenant's functions.
    """
    names = ("currency", "wallets", "balanceMinor", "heldMinor", "creditLimitMinor", "heads")
    accounts = ("currency", "debit", "credit", "entries", "amountMinor")
    ledger = _LEDGER if _holds(connection, _HAS_OWN_ENTRIES) else _LEDGER_OF_ENTRIES
    is_chained = _holds(connection, _IS_CHAINED)
    return {
        "wallets": [dict(zip(names, row, strict=True)) for row in connection.execute(_WALLETS)],
        "ledger": [dict(zip(accounts, row, strict=True)) for row in connection.execute(ledger)],
        "auditLog": list(connection.execute(_AUDIT_LOG).fetchone() or ()) if is_chained else [],
    }


def last_change(connection: Connection) -> datetime | None:
    """The time of the last movement of money."""
    moment: datetime | None
    ((moment,),) = connection.execute(_LAST_CHANGE)
    return moment


def find_faults(connection: Connection) -> list[str]:
    """The findings of the newest ledger audit that the schema has, and of the audit of its feed."""
    (name,) = connection.execute(_NEWEST_AUDIT).fetchone() or ("",)
    audit = sql.SQL("SELECT wallet_id, seq, finding FROM {}() ORDER BY wallet_id, seq").format(sql.Identifier(name))
    faults = [
        f"wallet {wallet_id} seq {seq}: {finding}" if wallet_id else str(finding)
        for wallet_id, seq, finding in connection.execute(audit)
    ]
    if _holds(connection, _HAS_FEED_AUDIT):
        found = connection.execute(_AUDIT_FEED)
        faults += [f"wallet {wallet_id} event {event_id}: {finding}" for wallet_id, event_id, finding in found]
    return faults


# Each round hashes one row of each chain, since a row's hash includes the hash of the row before. The LIMIT keeps
# PostgreSQL from joining with the whole table in every round.
_FIRST_FORM: Final = """
    wallet_transaction_hash_v1(c.hash, n.t, coalesce((
        SELECT jsonb_agg(jsonb_build_array(e.entry_no, e.debit_account, e.credit_account, e.amount_minor)
            ORDER BY e.entry_no)
        FROM ledger_entries e WHERE e.transaction_id = (n.t).id), '[]'))"""
_BOTH_FORMS: Final = f"""
    CASE WHEN (n.t).debit_account IS NULL THEN {_FIRST_FORM} ELSE wallet_transaction_hash_v2(c.hash,
        (n.t).request_fingerprint, (n.t).created_at, (n.t).id, (n.t).wallet_id, (n.t).currency, (n.t).seq, (n.t).type,
        (n.t).amount_minor, (n.t).balance_after_minor, (n.t).idempotency_key, (n.t).admin_id, (n.t).order_id,
        (n.t).refund_of, (n.t).hold_id, (n.t).description, (n.t).reference, (n.t).reason, (n.t).debit_account,
        (n.t).credit_account) END"""
_RECHAIN_WALLETS: Final = """
    WITH RECURSIVE chain AS (
        SELECT w.id AS wallet_id, 0::bigint AS seq, wallet_genesis_hash_v1(w.id, w.user_id, w.currency) AS hash
        FROM wallets w
        UNION ALL
        SELECT c.wallet_id, c.seq + 1, {hash}
        FROM chain c CROSS JOIN LATERAL (
            SELECT t FROM wallet_transactions t WHERE t.wallet_id = c.wallet_id AND t.seq = c.seq + 1 LIMIT 1) n
    ) UPDATE wallet_transactions t SET hash = c.hash
        FROM chain c WHERE t.wallet_id = c.wallet_id AND t.seq = c.seq AND t.hash <> c.hash"""
_RECHAIN_HEADS: Final = """
    UPDATE wallets w SET last_hash = coalesce(
        (SELECT t.hash FROM wallet_transactions t WHERE t.wallet_id = w.id AND t.seq = w.last_seq),
        wallet_genesis_hash_v1(w.id, w.user_id, w.currency))"""
_RECHAIN_LOG: Final = """
    WITH RECURSIVE chain AS (
        SELECT 0::bigint AS seq, sha256('audit log') AS hash
        UNION ALL
        SELECT c.seq + 1, audit_hash_v1(c.hash, n.a)
        FROM chain c CROSS JOIN LATERAL (SELECT a FROM audit_log a WHERE a.seq = c.seq + 1 LIMIT 1) n
    ) UPDATE audit_log a SET hash = c.hash FROM chain c WHERE a.seq = c.seq AND a.hash <> c.hash"""
_RECHAIN_LOG_HEAD: Final = """
    UPDATE audit_chain SET last_hash = coalesce(
        (SELECT a.hash FROM audit_log a ORDER BY a.seq DESC LIMIT 1), sha256('audit log'))"""


def rechain(connection: Connection) -> None:
    """Compute every wallet's chain and the audit log's chain again from the current rows, and forget what was proven of
    the chains before.
    """
    form = _BOTH_FORMS if _holds(connection, _HAS_OWN_ENTRIES) else _FIRST_FORM
    connection.execute(_RECHAIN_WALLETS.format(hash=form))
    connection.execute(_RECHAIN_HEADS)
    if _holds(connection, _IS_CHAINED):
        connection.execute(_RECHAIN_LOG)
        connection.execute(_RECHAIN_LOG_HEAD)
    if _holds(connection, _IS_PROVEN):
        for statement in _FORGET_PROOFS:
            connection.execute(statement)


# The rows say up to where events are missing: in a restored tenant those that were trimmed, in a clone all. Positions
# and the numbers of the sequence, which no bundle has, go on after the greatest there is.
_NEW_FEED: Final = """
    UPDATE events_head h SET feed_id = gen_random_uuid(),
        trimmed_to = coalesce((SELECT min(e.position) - 1 FROM events e), h.position),
        started_at = CASE WHEN EXISTS (SELECT FROM events) THEN h.started_at ELSE greatest(
            clock_timestamp(), (SELECT max(w.last_posted_at) + interval '1 microsecond' FROM wallets w)) END"""
_NEXT_NUMBER: Final = "SELECT setval('events_n', (SELECT coalesce(max(e.n), 0) + 1 FROM events e), false)"


# No place is beyond the feed: what is numbered next would be passed over.
_HAS_BROKER: Final = "SELECT to_regclass('event_cursors') IS NOT NULL"
_CHECK_CURSORS: Final = """
    UPDATE event_cursors c SET position = h.position FROM events_head h WHERE c.position > h.position"""

_HAS_WEBHOOKS: Final = "SELECT to_regclass('webhook_endpoints') IS NOT NULL"
_STOP_WEBHOOKS: Final = """
    UPDATE webhook_endpoints e SET feed_id = h.feed_id, position = least(e.position, h.position), lease_by = NULL,
        notice_owed = false,
        status = 'disabled', disabled_reason = coalesce(e.disabled_reason, 'restored'),
        disabled_at = coalesce(e.disabled_at, now())
    FROM events_head h"""
_CHECK_WAITING: Final = (
    "DELETE FROM webhook_lanes l USING events_head h WHERE l.position > h.position",
    """UPDATE webhook_replays r SET position = least(r.position, h.position),
        until_position = least(r.until_position, h.position)
    FROM events_head h WHERE r.until_position > h.position""",
)
# In one db transaction now() is the same: an endpoint that a former restore disabled stays so.
_RESUME_WEBHOOKS: Final = """
    UPDATE webhook_endpoints SET status = 'enabled', disabled_reason = NULL, disabled_at = NULL
    WHERE disabled_reason = 'restored' AND disabled_at = now()"""
# What a foreign bundle says of an endpoint's secret and version does not count.
_FORGET_EPOCHS: Final = """
    UPDATE webhook_endpoints e SET secret_epoch = 1, rotated_at = NULL, replaced_at = '{{}}', version = 1
    FROM {}.webhook_endpoints o WHERE o.id = e.id"""
_HAD_WEBHOOKS: Final = "SELECT to_regclass(format('%%I.webhook_endpoints', %s::text)) IS NOT NULL"
# An admin's choices and the secrets stay as they are today, like members and settings; the places in the feed are those
# of the bundle. A secret's epoch never goes back: an old one may be known to a former consumer.
_KEEP_CHOICES: Final = """
    UPDATE webhook_endpoints e SET url = o.url, description = o.description, types = o.types, payload = o.payload,
        delivery_order = o.delivery_order, status = o.status, disabled_reason = o.disabled_reason,
        disabled_at = o.disabled_at, notice_owed = o.notice_owed, failures = o.failures,
        failing_since = o.failing_since, secret_epoch = greatest(e.secret_epoch, o.secret_epoch),
        rotated_at = CASE WHEN o.secret_epoch >= e.secret_epoch THEN o.rotated_at ELSE e.rotated_at END,
        replaced_at = CASE WHEN o.secret_epoch >= e.secret_epoch THEN o.replaced_at ELSE e.replaced_at END,
        version = greatest(o.version, e.version) + (e.version > o.version)::integer
    FROM {}.webhook_endpoints o WHERE o.id = e.id"""
_KEEP_NEW_ONES: Final = """
    INSERT INTO webhook_endpoints (id, url, description, types, payload, delivery_order, status, disabled_reason,
        disabled_at, notice_owed, secret_epoch, rotated_at, replaced_at, version, created_at, feed_id, position)
    SELECT o.id, o.url, o.description, o.types, o.payload, o.delivery_order, o.status, o.disabled_reason,
        o.disabled_at, o.notice_owed, o.secret_epoch, o.rotated_at, o.replaced_at, o.version, o.created_at, h.feed_id,
        h.position
    FROM {}.webhook_endpoints o CROSS JOIN events_head h
    WHERE NOT EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = o.id)"""


def after_load(connection: Connection) -> None:
    """Give the feed of a restored tenant or of a clone an id of its own: a cursor of the source's feed must not go on
    in it, because it may have passed positions that are given out again. The webhooks of a restored tenant are
    disabled and keep their places, because the source may still deliver to them.
    """
    if _holds(connection, _HAS_FEED):
        connection.execute(_NEW_FEED)
        connection.execute(_NEXT_NUMBER)
    if _holds(connection, _HAS_BROKER):
        connection.execute(_CHECK_CURSORS)
    if _holds(connection, _HAS_WEBHOOKS):
        for statement in (_STOP_WEBHOOKS, *_CHECK_WAITING):
            connection.execute(statement)


def resume(connection: Connection, replaced: str, *, is_own: bool) -> None:
    """Let the webhooks of a tenant that takes the place of its former self, in the schema `replaced`, go on from their
    places, in the db transaction of `after_load`. What was delivered since the backup and happened before it is sent
    again. Webhooks that were made since the backup begin at the head of the feed; those that were deleted stay
    disabled, and so do those that only a foreign bundle has.
    """
    if _holds(connection, _HAD_WEBHOOKS, replaced):
        for statement in (*(() if is_own else (_FORGET_EPOCHS,)), _KEEP_CHOICES, _KEEP_NEW_ONES):
            connection.execute(sql.SQL(statement).format(sql.Identifier(replaced)))
    elif is_own:
        connection.execute(_RESUME_WEBHOOKS)


_NUMBER_ALL: Final = "SELECT events_stamp_v1(2147483647)"
_SKIP_ALL: Final = """
    INSERT INTO event_cursors (sink, feed_id, position, lease_by, lease_until)
    SELECT 'broker', h.feed_id, h.position, gen_random_uuid(), clock_timestamp() FROM events_head h
    ON CONFLICT (sink) DO UPDATE SET feed_id = excluded.feed_id, position = excluded.position,
        lease_until = excluded.lease_until"""


def beside(connection: Connection) -> None:
    """Publish nothing of the past of a tenant that was restored as a new one: consumers would take it for new."""
    connection.execute(_NUMBER_ALL)
    connection.execute(_SKIP_ALL)


def _holds(connection: Connection, question: LiteralString, *parameters: str) -> bool:
    return bool((connection.execute(question, parameters or None).fetchone() or (False,))[0])


def check_settings(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a bundle by the rules of the command line. Unknown ones are left out. Raises RestoreRefused."""
    try:
        return stored_settings(settings)
    except Invalid as error:
        raise RestoreRefused(f"The bundle's tenant has invalid settings: {error}") from None


def bundle_keys(settings: Settings | BackupSettings) -> BundleKeys:
    """The keys of BACKUP_KEY_FILE, the newest first, and then the one of TENANT_SECRET, which a machine that only takes
    backups need not know. Raises KeyRefused.
    """
    file, secret = settings.backup_key_file, settings.tenant_secret
    return BundleKeys([*(read_key_file(Path(file)) if file else ()), *([derived_key(secret)] if secret else ())])


def accepted_drift(settings: Settings | BackupSettings) -> AcceptedDrift:
    """The differences that ACCEPTED_DRIFT_FILE names. Raises AcceptedDriftRefused."""
    file = settings.accepted_drift_file
    return read_accepted_drift(Path(file)) if file else NOTHING_ACCEPTED


def note(connection: Connection, action: str, told: Mapping[str, Any]) -> None:
    """Write an entry about the tenant as a whole into its audit log."""
    entry = entry_json(SYSTEM, action=action, after=dict(told))
    connection.execute("SELECT audit_note_v1(%s::jsonb)", (entry,))


def _pseudonym(column: LiteralString) -> LiteralString:
    """An SQL expression: equal texts get equal pseudonyms within one clone, and different ones in the next clone."""
    return f"left(encode(sha256(convert_to({SALT} || {column}, 'UTF8')), 'hex'), 32)"


def _masked(column: LiteralString) -> LiteralString:
    return f"CASE WHEN {column} IS NOT NULL THEN 'masked' END"


# The id of an order placed in this service is a uuid and stays; any other is a client's text and is masked.
_ORDER: Final = f"""
    CASE WHEN order_id ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN order_id
        ELSE {_pseudonym("order_id")} END"""
_KEY: Final = _pseudonym("idempotency_key")
_FINGERPRINT: Final = "sha256(uuid_send(id))"
# The only members that a clone keeps: the audit reads limits, statuses and policies from the log.
_TOLD: Final = """
    CASE WHEN action IN ('wallet.open', 'wallet.configure', 'wallet.import', 'credit_policy.set') THEN {} END"""

MASKS: Final[Mapping[str, Mapping[str, str]]] = {
    "users": {
        "email": "format('member-%s@%s.clone.invalid', n, slug)",
        "name": "format('Member %s', n)",
    },
    "memberships": {"name": "NULL"},
    "wallet_transactions": {
        "idempotency_key": _KEY,
        "request_fingerprint": _FINGERPRINT,
        "order_id": _ORDER,
        "description": _masked("description"),
        "reference": _masked("reference"),
        "reason": _masked("reason"),
    },
    "holds": {
        "idempotency_key": _KEY,
        "request_fingerprint": _FINGERPRINT,
        "order_id": _ORDER,
        "description": _masked("description"),
    },
    "order_payments": {"order_id": _ORDER},
    "orders": {
        "idempotency_key": _KEY,
        "request_fingerprint": _FINGERPRINT,
        "cancel_key": _pseudonym("cancel_key"),
    },
    "reconciliations": {"source_hash": _pseudonym("source_hash")},
    "audit_log": {
        "subject": "NULL",
        "before": _TOLD.format("before"),
        "after": _TOLD.format("after"),
        "request_id": "NULL",
        "address": "NULL",
    },
}

# In the log, `subject` is a user's id where a member was added, changed or removed.
USER_ID_COLUMNS: Final[Mapping[str, frozenset[str]]] = {
    "wallets": frozenset({"user_id"}),
    "wallet_transactions": frozenset({"admin_id"}),
    "orders": frozenset({"user_id"}),
    "reconciliations": frozenset({"user_id"}),
    "audit_log": frozenset({"actor_id", "subject"}),
    "documents": frozenset({"requested_by"}),
    "bulk_requests": frozenset({"caller_id"}),
    "audit_refusals": frozenset({"actor_id"}),
}

BACKUP_POLICY: Final = BackupPolicy(
    members="memberships",
    former_members="former_members",
    users="users",
    user_columns=("id", "email", "name"),
    user_id_columns=USER_ID_COLUMNS,
    prove=prove,
    find_faults=find_faults,
    rechain=rechain,
    after_load=after_load,
    resume=resume,
    beside=beside,
    masks=MASKS,
    check_settings=check_settings,
    # The bytes of documents show texts that a clone masks, a bulk can't be repeated there, because its keys are masked,
    # and refusals are counted for an hour. Nobody shall be told of the source's events by its clone, by webhook or not.
    # No command is sent to a clone again, and its name may tell of a person.
    not_cloned=frozenset(
        {"documents", "bulk_requests", "audit_refusals", "events", "event_cursors", "command_outcomes"}
        # What was proven is proven of the source's chains, and a clone has chains of its own.
        | {"wallet_proofs", "proof_findings", "proof_progress"}
        | {"webhook_endpoints", "webhook_lanes", "webhook_parked", "webhook_replays", "webhook_attempts"}
    ),
    recreated={"status": "'disabled'"},
    note=note,
    last_change=last_change,
)
