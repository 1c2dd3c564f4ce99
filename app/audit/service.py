"""Writing and reading the audit log of the bound tenant.

The audit entry and the change that it records commit in the same db transaction. An entry locks the head of the
tenant's chain until that db transaction ends, so write it last. The database takes entries of the known form only: an
action is a dotted name, states are plain objects, and texts of a request are cut.
"""

import operator
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from psycopg import sql

from app.api.bounded_scan import scan
from app.api.pagination import Found, PageRequest
from app.audit.models import AuditRecord, ShownEntry
from app.auth.actors import Actor
from app.auth.named_actors import acted
from app.current import g
from app.db import db
from app.users.directory import wallet_owners
from tenant_schemas.flask import connections
from tenant_schemas.tenant import Tenant

_NOTE: Final = sa.text("SELECT audit_note_v2(CAST(:entry AS jsonb))")


def entry_json(actor: Actor, **told: Any) -> str:
    """An entry as the JSON argument of `audit_note_v2`: the actor, and further fields by their names in AuditRecord. A
    time in UTC ends with Z.
    """
    who = {
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "address": actor.address,
        "request_id": actor.request_id,
    }
    known = {name: value.replace("\0", "%00") if isinstance(value, str) else value for name, value in told.items()}
    return orjson.dumps(who | known, option=orjson.OPT_UTC_Z).decode()


def add_entry(actor: Actor, action: str, **told: Any) -> None:
    """Write an entry in the session's db transaction. Commits nothing."""
    db.session.execute(_NOTE, {"entry": entry_json(actor, action=action, **told)})
    mark_written()


def commit_entry(tenant: Tenant, actor: Actor, action: str, **told: Any) -> None:
    """Write an entry into a tenant's log in a db transaction of its own, committed when it returns. For changes on the
    shared side: call it just before their commit. In the worst case the log has an entry for a change that never
    committed.
    """
    # The tenant may be behind if it is being stopped: the first version is in every schema, and calls the newest.
    statement = "SELECT audit_note_v1(%s::jsonb)"
    connections().engine(tenant).one_statement(statement, (entry_json(actor, action=action, **told),))
    mark_written()


def commit_refusal(tenant: Tenant, actor: Actor, action: str, *, subject: str, refusal: str) -> None:
    """`commit_entry` for a request that was refused for want of a right. Of one caller and action, ten in an hour have
    an entry each; all further ones are counted, and have one entry when the hour is over.

    Locks the caller's count, and then the head of the audit log's chain.
    """
    # The first version for the reason in `commit_entry`.
    statement = "SELECT audit_refused_v1(%s::jsonb)"
    entry = entry_json(actor, action=action, subject=subject, refusal=refusal)
    connections().engine(tenant).one_statement(statement, (entry,))


def end_refusal_windows() -> None:
    """Write the counts of refusals whose hour is over into the bound tenant's log, in the session's db transaction.
    Locks these counts, and then the head of the audit log's chain. Commits nothing.
    """
    # The first version for the reason in `commit_entry`.
    db.session.execute(sa.text("SELECT audit_refusals_end_v1()"))


def mark_written() -> None:
    """Tell the rest of this request that it has its entry. For an entry that an SQL function writes, call it after the
    function.
    """
    g.has_audit_entry = True


def mark_rehearsal() -> None:
    """Tell the rest of this request that it changes nothing, whatever comes of it. A dry run calls it first."""
    g.is_rehearsal = True


def set_actor(actor: Actor) -> None:
    """Set the actor of the session's db transaction, for the entries that the tenant's SQL functions write in it."""
    said = {"kind": actor.kind, "address": actor.address, "requestId": actor.request_id}
    setting = sql.SQL("SET LOCAL audit.actor TO {}").format(orjson.dumps(said).decode())
    db.session.connection().exec_driver_sql(setting.as_string())


def list_entries(
    page: PageRequest,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    action: str | None = None,
    actor_id: UUID | None = None,
    actor_kind: str | None = None,
    wallet_id: UUID | None = None,
    is_refused: bool | None = None,
) -> Found[ShownEntry]:
    """Entries of the bound tenant with actors and members, newest first; a position is (seq,). `start` is inclusive,
    `end` is exclusive.
    """
    log = AuditRecord
    query = sa.select(log).where(*_seq_conditions(start, end))
    for column, value in ((log.action, action), (log.actor_id, actor_id), (log.wallet_id, wallet_id)):
        if value is not None:
            query = query.where(column == value)
    others = [] if actor_kind is None else [log.actor_kind == actor_kind]
    if is_refused is not None:
        others.append(log.refusal.is_not(None) if is_refused else log.refusal.is_(None))
    found = scan(page, query, (log.seq,), others)
    return found.showing(_shown(found.items))


def _shown(entries: Sequence[AuditRecord]) -> list[ShownEntry]:
    members = wallet_owners({entry.wallet_id for entry in entries if entry.wallet_id is not None})
    return [
        ShownEntry(entry.item, entry.actor, *(members.get(entry.wallet_id) or (None, None))) for entry in acted(entries)
    ]


def _seq_conditions(start: datetime | None, end: datetime | None) -> list[sa.ColumnElement[bool]]:
    """A period as a range of seq, found by two index look-ups: `at` and `seq` grow together."""
    log = AuditRecord
    found: list[sa.ColumnElement[bool]] = []
    for moment, compare in ((start, operator.gt), (end, operator.le)):
        if moment is not None:
            before = sa.select(log.seq).where(log.at < moment).order_by(log.at.desc(), log.seq.desc()).limit(1)
            found.append(compare(log.seq, sa.func.coalesce(before.scalar_subquery(), 0)))
    return found
