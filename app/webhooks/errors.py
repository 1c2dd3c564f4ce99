"""Refusals of webhooks."""

from app.errors import Conflict, NotFound, PreconditionFailed
from app.sql_refusals import sql_refusal


class WebhookNotFound(NotFound):
    """No such webhook in this tenant."""

    code = "webhook_not_found"
    text = "There is no such webhook."


class WebhookReplayNotFound(NotFound):
    """The webhook has no such replay. Finished ones are kept for a month."""

    code = "webhook_replay_not_found"
    text = "There is no such replay."


class EventNotFound(NotFound):
    """The feed has no such event, or no longer."""

    code = "event_not_found"
    text = "The feed has no such event."


@sql_refusal
class TooManyWebhooks(Conflict):
    """The tenant has as many webhooks as it may have: `limit`."""

    code = "too_many_webhooks"
    sqlstate = "WA050"
    text = "The tenant has as many webhooks as it may have. Delete one."


@sql_refusal
class WebhookVersionMismatch(PreconditionFailed):
    sqlstate = "WA051"
    text = "The webhook has changed since; read it again."


@sql_refusal
class WebhookEventsTrimmed(Conflict):
    """The webhook waits for events that the feed keeps no longer. Enable it with `skipTrimmed=true` to go on without
    them; they are in the histories of the wallets.
    """

    code = "webhook_events_trimmed"
    sqlstate = "WA052"
    text = "The feed no longer has all events that this webhook waits for. Send skipTrimmed=true to go on without them."


@sql_refusal
class TooManyWebhookReplays(Conflict):
    """The webhook has as many unfinished replays as it may have: `limit`."""

    code = "too_many_webhook_replays"
    sqlstate = "WA053"
    text = "The webhook has as many unfinished replays as it may have. Wait until one is finished."
