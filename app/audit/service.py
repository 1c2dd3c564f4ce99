"""Writing and reading the audit log of the bound tenant.

The audit entry and the change that it records commit in the same db transaction. An entry locks the head of the
tenant's chain until that db transaction ends, so write it last.
"""

from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from psycopg import sql

from app.audit.models import AuditRecord, ReadEntry
from app.auth.actors import Actor
from app.db import db
from tenant_schemas.flask import connections
from tenant_schemas.tenant import Tenant

# The feature `wallets` is above the audit log, so its model can't be imported.
_wallets_table = sa.table("wallets", sa.column("id", sa.Uuid), sa.column("currency", sa.Text))
_wallets = _wallets_table.c
_NOTE: Final = sa.text("SELECT audit_note_v1(CAST(:entry AS jsonb))")


def entry_json(actor: Actor, **told: Any) -> str:
    """An entry as the JSON argument of `audit_note_v1`: the actor, and further fields by their names in AuditRecord."""
    who = {
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "address": actor.address,
        "request_id": actor.request_id,
    }
    known = {name: value.replace("\0", "%00") if isinstance(value, str) else value for name, value in told.items()}
    return orjson.dumps(who | known).decode()


def add_entry(actor: Actor, action: str, **told: Any) -> None:
    """Write an entry in the session's db transaction. Commits nothing."""
    db.session.execute(_NOTE, {"entry": entry_json(actor, action=action, **told)})


def commit_entry(tenant: Tenant, actor: Actor, action: str, **told: Any) -> None:
    """Write an entry into a tenant's log in a db transaction of its own, committed when it returns. For changes on the
    shared side: call it just before their commit. In the worst case the log has an entry for a change that never
    committed.
    """
    statement = "SELECT audit_note_v1(%s::jsonb)"
    connections().engine(tenant).one_statement(statement, (entry_json(actor, action=action, **told),))


def set_actor(actor: Actor) -> None:
    """Set the actor of the session's db transaction, for the entries that the tenant's SQL functions write in it."""
    said = {"kind": actor.kind, "address": actor.address, "requestId": actor.request_id}
    setting = sql.SQL("SET LOCAL audit.actor TO {}").format(orjson.dumps(said).decode())
    db.session.connection().exec_driver_sql(setting.as_string())


def list_entries(
    *,
    after: list[Any] | None,
    limit: int,
    action: str | None = None,
    actor_id: UUID | None = None,
    wallet_id: UUID | None = None,
    is_refused: bool | None = None,
) -> list[ReadEntry]:
    """Entries of the bound tenant, newest first; `after` is (seq,)."""
    log = AuditRecord
    query = sa.select(log, _wallets.currency).join(_wallets_table, _wallets.id == log.wallet_id, isouter=True)
    query = query.order_by(log.seq.desc()).limit(limit)
    if after is not None:
        query = query.where(log.seq < after[0])
    if action is not None:
        query = query.where(log.action == action)
    if actor_id is not None:
        query = query.where(log.actor_id == actor_id)
    if wallet_id is not None:
        query = query.where(log.wallet_id == wallet_id)
    if is_refused is not None:
        query = query.where(log.refusal.is_not(None) if is_refused else log.refusal.is_(None))
    return [ReadEntry(*row) for row in db.session.execute(query)]
