"""Refusals of the feed: a cursor that the feed can't go on from."""

from app.errors import Gone


class FeedChanged(Gone):
    """The cursor is of another feed: the tenant was restored since. `feedId` names the feed of today. Read again from
    its start, or compare with the wallets' histories.
    """

    code = "feed_changed"


class FeedTrimmed(Gone):
    """The events after the cursor are older than the feed keeps. `trimmedTo` is the position from which on it has all.
    `GET /api/admin/events/replay` has the movements
    before it.
    """

    code = "feed_trimmed"
