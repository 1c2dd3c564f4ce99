"""The format of server-sent events (WHATWG HTML, 9.2)."""

from typing import Final

MEDIA_TYPE: Final = "text/event-stream"
RETRY_MILLISECONDS: Final = 3000  # After this time a client connects again.


def opening(cursor: str) -> bytes:
    """The first bytes: how long to wait before connecting again, and from where to go on then."""
    return f"retry: {RETRY_MILLISECONDS}\nid: {cursor}\n\n".encode()


def event(cursor: str, kind: str, data: bytes) -> bytes:
    """One event. `data` is JSON in one line."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor.encode(), kind.encode(), data)


def heartbeat(cursor: str) -> bytes:
    """A comment, which keeps proxies from closing the connection. Its id lets a client that sees few of the events go
    on at the end of the feed.
    """
    return f": \nid: {cursor}\n\n".encode()
