"""The verbs of an admin on the bound tenant's webhooks. They work in the session's db transaction, with an audit entry
for each change, and commit nothing. `delivery.py` sends the events.
"""

from dataclasses import asdict
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, TypeVar
from uuid import UUID

import sqlalchemy as sa

from app.audit.service import add_entry
from app.auth.actors import Actor
from app.db import db
from app.errors import Invalid
from app.events.models import Event
from app.events.period import Period, find_period
from app.sql_refusals import named_refusals
from app.webhooks.addresses import AddressRefused
from app.webhooks.delivery import own_delivery
from app.webhooks.errors import EventNotFound, WebhookNotFound, WebhookReplayNotFound
from app.webhooks.models import ParkedEvent, WebhookAttempt, WebhookEndpoint, WebhookLane, WebhookReplay
from app.webhooks.signature import secret_of
from tenant_schemas.context import current_tenant

Model = TypeVar("Model", WebhookEndpoint, WebhookReplay)

_CREATE: Final = sa.text("SELECT * FROM webhook_create_v1(:url, :description, :types, :payload, :delivery_order)")
_CHANGE: Final = sa.text(
    "SELECT * FROM webhook_change_v1(:id, :version, :url, :description, :types, :payload, :delivery_order)"
)
_ENABLE: Final = sa.text("SELECT * FROM webhook_enable_v1(:id, :skips_trimmed)")
_DISABLE: Final = sa.text("SELECT * FROM webhook_disable_v1(:id)")
_ROTATE: Final = sa.text("SELECT * FROM webhook_rotate_v1(:id)")
_DELETE: Final = sa.text("SELECT webhook_delete_v1(:id)")
_REPLAY: Final = sa.text("SELECT * FROM webhook_replay_v2(:id, :position, :until, :types, :ledger_from, :ledger_until)")
_CHOSEN: Final = ("url", "description", "types", "payload", "delivery_order")


def create_webhook(chosen: dict[str, Any], *, actor: Actor) -> tuple[WebhookEndpoint, str]:
    """A new webhook, and its secret, which is shown now and never again. It gets the events from now on. Locks the
    table of webhooks. Raises Invalid, TooManyWebhooks.
    """
    _check_url(chosen["url"])
    made = _one(WebhookEndpoint, _CREATE, {"description": None} | chosen)
    add_entry(actor, "webhook.create", subject=str(made.id), after=_told(made))
    return made, _secret_of(made)


def list_webhooks(*, after: list[Any] | None, limit: int) -> list[WebhookEndpoint]:
    """The tenant's webhooks, oldest first; `after` is (created_at, id)."""
    query = sa.select(WebhookEndpoint).order_by(WebhookEndpoint.created_at, WebhookEndpoint.id).limit(limit)
    if after is not None:
        query = query.where(sa.tuple_(WebhookEndpoint.created_at, WebhookEndpoint.id) > _moment_and_id(after))
    return list(db.session.scalars(query))


def get_webhook(webhook_id: UUID) -> WebhookEndpoint:
    """Raises WebhookNotFound."""
    found = db.session.get(WebhookEndpoint, webhook_id)
    if found is None:
        raise WebhookNotFound(WebhookNotFound.text)
    return found


def count_waiting(webhook_id: UUID) -> tuple[int, int]:
    """How many lanes of the webhook wait, and how many of its events are parked."""
    lanes, parked = (
        sa.select(sa.func.count()).where(table.endpoint_id == webhook_id).scalar_subquery()
        for table in (WebhookLane, ParkedEvent)
    )
    row = db.session.execute(sa.select(lanes, parked)).one()
    return row[0], row[1]


def change_webhook(webhook_id: UUID, changes: dict[str, Any], *, version: int | None, actor: Actor) -> WebhookEndpoint:
    """Change what an admin chooses, at this version, or at any. Locks the webhook's row. Raises WebhookNotFound,
    WebhookVersionMismatch, Invalid.
    """
    old = get_webhook(webhook_id)
    before = _told(old)
    chosen = {name: getattr(old, name) for name in _CHOSEN} | changes
    if "url" in changes:
        _check_url(changes["url"])
    changed = _one(WebhookEndpoint, _CHANGE, {"id": webhook_id, "version": version, **chosen})
    add_entry(actor, "webhook.change", subject=str(webhook_id), before=before, after=_told(changed))
    return changed


def delete_webhook(webhook_id: UUID, *, actor: Actor) -> None:
    """Delete the webhook with its log and all that waits for it. Raises WebhookNotFound."""
    before = _told(get_webhook(webhook_id))
    if not db.session.execute(_DELETE, {"id": webhook_id}).scalar_one():
        raise WebhookNotFound(WebhookNotFound.text)
    db.session.expire_all()
    add_entry(actor, "webhook.delete", subject=str(webhook_id), before=before)


def enable_webhook(webhook_id: UUID, *, skips_trimmed: bool, actor: Actor) -> WebhookEndpoint:
    """Go on from the webhook's place in the feed. Locks its row. Raises WebhookNotFound, WebhookEventsTrimmed."""
    found = _one(WebhookEndpoint, _ENABLE, {"id": webhook_id, "skips_trimmed": skips_trimmed})
    add_entry(actor, "webhook.enable", subject=str(webhook_id), after={"skipTrimmed": skips_trimmed})
    return found


def disable_webhook(webhook_id: UUID, *, actor: Actor) -> WebhookEndpoint:
    """Stop delivering. The webhook keeps its place in the feed. Locks its row. Raises WebhookNotFound."""
    found = _one(WebhookEndpoint, _DISABLE, {"id": webhook_id})
    add_entry(actor, "webhook.disable", subject=str(webhook_id))
    return found


def rotate_secret(webhook_id: UUID, *, actor: Actor) -> tuple[WebhookEndpoint, str]:
    """Give the webhook its next secret, which is shown now and never again. Each that was replaced in the last 24 hours
    signs too, nine at most. Locks the webhook's row. Raises WebhookNotFound.
    """
    found = _one(WebhookEndpoint, _ROTATE, {"id": webhook_id})
    add_entry(actor, "webhook.rotate", subject=str(webhook_id), after={"epoch": found.secret_epoch})
    return found, _secret_of(found)


def list_attempts(
    webhook_id: UUID, *, after: list[Any] | None, limit: int, outcome: str | None = None
) -> list[WebhookAttempt]:
    """The webhook's delivery log, newest first; `after` is (at, id). Raises WebhookNotFound."""
    get_webhook(webhook_id)
    log = WebhookAttempt
    query = sa.select(log).where(log.endpoint_id == webhook_id).order_by(log.at.desc(), log.id.desc()).limit(limit)
    if outcome is not None:
        query = query.where(log.outcome == outcome)
    if after is not None:
        query = query.where(sa.tuple_(log.at, log.id) < _moment_and_id(after))
    return list(db.session.scalars(query))


def list_parked(webhook_id: UUID, *, after: list[Any] | None, limit: int) -> list[ParkedEvent]:
    """The events of the webhook that were given up, in the order of the feed; `after` is (position,). Raises
    WebhookNotFound.
    """
    get_webhook(webhook_id)
    parked = ParkedEvent
    query = sa.select(parked).where(parked.endpoint_id == webhook_id).order_by(parked.position).limit(limit)
    if after is not None:
        query = query.where(parked.position > int(after[0]))
    return list(db.session.scalars(query))


def resend_event(webhook_id: UUID, event_id: UUID, *, actor: Actor) -> WebhookReplay:
    """Send one event again, whatever its type, with the same id. Locks the webhook's row. Raises WebhookNotFound,
    EventNotFound, TooManyWebhookReplays.
    """
    get_webhook(webhook_id)
    event = db.session.execute(sa.select(Event.position, Event.type).where(Event.id == event_id)).one_or_none()
    if event is None or event.position is None:
        raise EventNotFound(EventNotFound.text)
    made = _replay(webhook_id, Period(event.position - 1, event.position), [event.type])
    add_entry(actor, "webhook.resend", subject=str(webhook_id), after={"eventId": str(event_id)})
    return made


def replay_events(webhook_id: UUID, *, start: datetime, end: datetime, types: list[str], actor: Actor) -> WebhookReplay:
    """Send the events of a period again, of these types or of the webhook's; of what the feed has no more, those of
    movements. Locks the webhook's row. Raises WebhookNotFound, EventNotFound for a period without an event,
    TooManyWebhookReplays.
    """
    get_webhook(webhook_id)
    period = find_period(start, end)
    if period is None:
        raise EventNotFound("The period has neither an event of the feed nor a movement.")
    made = _replay(webhook_id, period, types)
    told = {"from": start.isoformat(), "to": end.isoformat(), "types": types}
    add_entry(actor, "webhook.replay", subject=str(webhook_id), after=told)
    return made


def get_replay(webhook_id: UUID, replay_id: UUID) -> WebhookReplay:
    """Raises WebhookReplayNotFound."""
    found = db.session.get(WebhookReplay, replay_id)
    if found is None or found.endpoint_id != webhook_id:
        raise WebhookReplayNotFound(WebhookReplayNotFound.text)
    return found


def _replay(webhook_id: UUID, period: Period, types: list[str]) -> WebhookReplay:
    return _one(WebhookReplay, _REPLAY, {"id": webhook_id, "types": types, **asdict(period)})


def _one(model: type[Model], call: sa.TextClause, told: dict[str, Any]) -> Model:
    columns = model.__table__.columns
    statement = sa.select(model).from_statement(call.columns(*columns)).execution_options(populate_existing=True)
    with named_refusals():
        found: Model | None = db.session.scalars(statement, told).one_or_none()
    if found is None:
        raise WebhookNotFound(WebhookNotFound.text)
    return found


def _secret_of(webhook: WebhookEndpoint) -> str:
    return secret_of(own_delivery().master_secret, current_tenant().id, webhook.id, webhook.secret_epoch)


def _check_url(url: str) -> None:
    """The form of the URL, and an address in it. What its name resolves to is checked at each attempt."""
    try:
        own_delivery().sender.rules.target(url)
    except AddressRefused as refused:
        raise Invalid.at("url", "url_not_allowed", str(refused)) from None


def _told(webhook: WebhookEndpoint) -> dict[str, Any]:
    """What the audit log says of a webhook. A query may have a credential in it, and entries can't be deleted: the
    digest tells one whole URL from another.
    """
    return {
        "url": webhook.url.partition("?")[0],
        "urlSha256": sha256(webhook.url.encode()).hexdigest()[:12],
        "description": webhook.description,
        "types": list(webhook.types),
        "payload": webhook.payload,
        "order": webhook.delivery_order,
    }


def _moment_and_id(after: list[Any]) -> sa.Tuple:
    return sa.tuple_(sa.literal(datetime.fromisoformat(after[0])), sa.literal(UUID(after[1])))
