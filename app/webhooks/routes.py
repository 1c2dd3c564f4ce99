"""The webhooks of a tenant, for its admins."""

from typing import Any
from uuid import UUID

from app.api.blueprint import Blueprint
from app.api.conditional import etag, if_match
from app.api.headers import gives_etag, gives_location, needs_version
from app.api.links import location
from app.api.pagination import Page, PageQuery, paginate
from app.api.refusals import refuses
from app.auth.access import Access, access, actor
from app.webhooks import service, trial
from app.webhooks.errors import (
    EventNotFound,
    TooManyWebhookReplays,
    TooManyWebhooks,
    WebhookEventsTrimmed,
    WebhookNotFound,
    WebhookReplayNotFound,
    WebhookVersionMismatch,
)
from app.webhooks.models import ParkedEvent, WebhookAttempt, WebhookEndpoint, WebhookReplay
from app.webhooks.schemas import (
    AttemptListQuery,
    ChangeWebhookSchema,
    CreateWebhookSchema,
    EnableWebhookQuery,
    NewWebhookSchema,
    ParkedEventPageSchema,
    ReplayWebhookSchema,
    WebhookAttemptPageSchema,
    WebhookAttemptSchema,
    WebhookDetailsSchema,
    WebhookPageSchema,
    WebhookReplaySchema,
    WebhookSchema,
)

blueprint = Blueprint(
    "webhooks", __name__, url_prefix="/api/admin/webhooks", description="Events that are sent to URLs of the tenant."
)


@blueprint.get("")
@access(Access.ADMIN)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, WebhookPageSchema)
def list_webhooks(query: dict[str, Any]) -> Page[WebhookEndpoint]:
    """This tenant's webhooks, oldest first."""
    return paginate(
        query,
        lambda after, limit: service.list_webhooks(after=after, limit=limit),
        lambda item: [item.created_at, item.id],
    )


@blueprint.post("")
@access(Access.ADMIN, "webhook.create")
@gives_location
@blueprint.arguments(CreateWebhookSchema)
@blueprint.response(201, NewWebhookSchema)
@refuses(TooManyWebhooks)
def create_webhook(body: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Send the events from now on to a URL, signed by Standard Webhooks. The secret is shown in this answer only."""
    made, secret = service.create_webhook(body, actor=actor())
    return _with_secret(made, secret), 201, location("admin/webhooks", made.id)


@blueprint.get("/<uuid:webhook_id>")
@access(Access.ADMIN)
@blueprint.response(200, WebhookDetailsSchema)
@gives_etag
@refuses(WebhookNotFound)
def show_webhook(webhook_id: UUID) -> tuple[dict[str, Any], dict[str, str]]:
    """A webhook, and how many of its events wait."""
    found = service.get_webhook(webhook_id)
    held_up, parked = service.count_waiting(webhook_id)
    return _shown(found) | {"held_up": held_up, "parked": parked}, etag(found.version)


@blueprint.patch("/<uuid:webhook_id>")
@access(Access.ADMIN, "webhook.change")
@needs_version
@blueprint.arguments(ChangeWebhookSchema)
@blueprint.response(200, WebhookSchema)
@refuses(WebhookNotFound, WebhookVersionMismatch)
def change_webhook(body: dict[str, Any], webhook_id: UUID) -> tuple[WebhookEndpoint, dict[str, str]]:
    """Change a webhook. It keeps its place in the feed."""
    seen = if_match()
    version = None if seen.is_any else seen.version(lambda: service.get_webhook(webhook_id).version)
    changed = service.change_webhook(webhook_id, body, version=version, actor=actor())
    return changed, etag(changed.version)


@blueprint.delete("/<uuid:webhook_id>")
@access(Access.ADMIN, "webhook.delete")
@blueprint.response(204)
@refuses(WebhookNotFound)
def delete_webhook(webhook_id: UUID) -> None:
    """Delete a webhook, with its log and the events that wait for it. To keep its place, disable it instead."""
    service.delete_webhook(webhook_id, actor=actor())


@blueprint.post("/<uuid:webhook_id>/enable")
@access(Access.ADMIN, "webhook.enable")
@blueprint.arguments(EnableWebhookQuery, location="query")
@blueprint.response(200, WebhookSchema)
@refuses(WebhookNotFound, WebhookEventsTrimmed)
def enable_webhook(query: dict[str, Any], webhook_id: UUID) -> WebhookEndpoint:
    """Go on with a webhook from where it stopped."""
    return service.enable_webhook(webhook_id, **query, actor=actor())


@blueprint.post("/<uuid:webhook_id>/disable")
@access(Access.ADMIN, "webhook.disable")
@blueprint.response(200, WebhookSchema)
@refuses(WebhookNotFound)
def disable_webhook(webhook_id: UUID) -> WebhookEndpoint:
    """Stop sending. The webhook keeps its place in the feed, and nothing is lost as long as the feed keeps events."""
    return service.disable_webhook(webhook_id, actor=actor())


@blueprint.post("/<uuid:webhook_id>/rotate")
@access(Access.ADMIN, "webhook.rotate")
@blueprint.response(200, NewWebhookSchema)
@refuses(WebhookNotFound)
def rotate_webhook_secret(webhook_id: UUID) -> dict[str, Any]:
    """Make a new secret, which is shown in this answer only. For 24 hours messages are signed with the old one too."""
    return _with_secret(*service.rotate_secret(webhook_id, actor=actor()))


@blueprint.post("/<uuid:webhook_id>/test")
@access(Access.ADMIN, "webhook.test")
@blueprint.response(200, WebhookAttemptSchema)
@refuses(WebhookNotFound)
def test_webhook(webhook_id: UUID) -> WebhookAttempt:
    """Send a message of type `webhook.test.v1` now, also to a disabled webhook, and show what came of it."""
    return trial.test_webhook(webhook_id, actor=actor())


@blueprint.get("/<uuid:webhook_id>/attempts")
@access(Access.ADMIN)
@blueprint.arguments(AttemptListQuery, location="query")
@blueprint.response(200, WebhookAttemptPageSchema)
@refuses(WebhookNotFound)
def list_webhook_attempts(query: dict[str, Any], webhook_id: UUID) -> Page[WebhookAttempt]:
    """The delivery log, newest first: attempts that failed, and what was delivered after a failure, in a replay or as a
    test. It is kept for 30 days, and has the newest 10,000 attempts.
    """
    return paginate(
        query,
        lambda after, limit: service.list_attempts(webhook_id, after=after, limit=limit, outcome=query.get("outcome")),
        lambda item: [item.at, item.id],
    )


@blueprint.get("/<uuid:webhook_id>/parked")
@access(Access.ADMIN)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, ParkedEventPageSchema)
@refuses(WebhookNotFound)
def list_parked_events(query: dict[str, Any], webhook_id: UUID) -> Page[ParkedEvent]:
    """The events that were given up after ten attempts, in the order of the feed. Resend them, or replay the period."""
    return paginate(
        query,
        lambda after, limit: service.list_parked(webhook_id, after=after, limit=limit),
        lambda item: [item.position],
    )


@blueprint.post("/<uuid:webhook_id>/events/<uuid:event_id>/resend")
@access(Access.ADMIN, "webhook.resend")
@gives_location
@blueprint.response(201, WebhookReplaySchema)
@refuses(WebhookNotFound, EventNotFound, TooManyWebhookReplays)
def resend_event(webhook_id: UUID, event_id: UUID) -> tuple[WebhookReplay, int, dict[str, str]]:
    """Send one event again soon, with the same `webhook-id`."""
    return _made(service.resend_event(webhook_id, event_id, actor=actor()))


@blueprint.post("/<uuid:webhook_id>/replay")
@access(Access.ADMIN, "webhook.replay")
@gives_location
@blueprint.arguments(ReplayWebhookSchema)
@blueprint.response(201, WebhookReplaySchema)
@refuses(WebhookNotFound, EventNotFound, TooManyWebhookReplays)
def replay_webhook(body: dict[str, Any], webhook_id: UUID) -> tuple[WebhookReplay, int, dict[str, str]]:
    """Send the events of a period again, beside the new ones, with the same `webhook-id` each. Of what the feed has no
    more, movements come again.
    """
    return _made(service.replay_events(webhook_id, **body, actor=actor()))


@blueprint.get("/<uuid:webhook_id>/replays/<uuid:replay_id>")
@access(Access.ADMIN)
@blueprint.response(200, WebhookReplaySchema)
@refuses(WebhookReplayNotFound)
def show_webhook_replay(webhook_id: UUID, replay_id: UUID) -> WebhookReplay:
    """How far a replay has come. Finished replays are kept for 30 days."""
    return service.get_replay(webhook_id, replay_id)


def _made(replay: WebhookReplay) -> tuple[WebhookReplay, int, dict[str, str]]:
    return replay, 201, location(f"admin/webhooks/{replay.endpoint_id}/replays", replay.id)


def _shown(webhook: WebhookEndpoint) -> dict[str, Any]:
    return {column.key: getattr(webhook, column.key) for column in WebhookEndpoint.__table__.columns}


def _with_secret(webhook: WebhookEndpoint, secret: str) -> dict[str, Any]:
    return _shown(webhook) | {"secret": secret}
