"""gunicorn's worker with threads, changed so that a client that sends slowly or nothing holds no thread.

The original hands each new connection to a thread, where an idle one waits 5 s and an unfinished header for ever.
Here the worker's main loop reads until the header and a small body are complete. It does not parse: it looks for the
end of the request only to choose the moment, and gunicorn's parser then gets every byte and decides as before.
"""

import re
import socket
import struct
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.shutdown import is_stopping

RECEIVE_SECONDS: Final = 10.0  # for the header and a small body, in the main loop
LARGE_BODY_SECONDS: Final = 30.0  # for the rest of a large body, which a thread reads
REST_SECONDS: Final = 1.0  # for the rest of a request that looked complete: a chunk may look like the last one
DISCARD_SECONDS: Final = 0.05  # for the rest of a body that the application did not read
LINGER_SECONDS: Final = 2.0  # for a client to close a connection that was answered for the last time
STALLED_CLIENT_SECONDS: Final = 60  # for one piece of the response
BUFFER_BYTES: Final = 65_536
HEAD_END: Final = b"\r\n\r\n"
# gunicorn believes headers of a proxy on this machine, and of any client of a Unix socket: SCRIPT_NAME moves a part of
# the path out of it, and so walks round a proxy's rule about paths. TRUSTED_PROXIES alone names a header to believe.
BELIEVED_OF_PROXIES: Final[dict[str, Any]] = {
    "forwarded_allow_ips": "",
    "forwarder_headers": "",
    "proxy_protocol": "off",  # Any client could send its line, and choose an address.
    "secure_scheme_headers": {},
    "header_map": "drop",  # A name with `_` could not be told from one with `-`.
}
LAST_CHUNK_BYTES: Final = 64  # more than the line of a last chunk has, unless it has long extensions
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_LAST_CHUNK: Final = re.compile(rb"\r\n0+[ \t]*(;[^\r\n]*)?\r\n")
_EXPECTS: Final = re.compile(rb"\r\nexpect:", re.IGNORECASE)  # The client waits for an answer before it sends its body.


class DeadlineUnreader(SocketUnreader):  # type: ignore[misc]  # gunicorn is not typed
    """The parser's source of bytes after those that the main loop read. All reads of a request end at the deadline."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.deadline = 0.0

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Raises TimeoutError."""
        self.sock.settimeout(max(0.001, self.deadline - time.monotonic()))
        try:
            return bytes(super().chunk(size_hint))
        finally:
            self.sock.settimeout(None)


class BufferedConnection(TConn):  # type: ignore[misc]
    """A connection with the bytes of a request that is not complete yet."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.data_ready = True  # So that no thread waits for the first byte.
        self.discarded_bytes = 0
        self.clear()

    def clear(self) -> None:
        self.received = bytearray()
        self.needed_bytes: int | None = None  # known when the header is complete
        self.is_chunked = False
        self.waits = False  # for `100 Continue`

    def init(self) -> None:
        if not self.initialized:
            super().init()
            self.parser.unreader = DeadlineUnreader(self.sock)

    def add(self, received: bytes) -> bool:
        """Keep these bytes; whether a thread should read on: the request is complete, or large, or the client waits."""
        start = max(0, len(self.received) - len(HEAD_END) + 1)
        self.received += received
        if self.needed_bytes is None and (end := self.received.find(HEAD_END, start)) >= 0:
            head = bytes(self.received[: end + 2])
            self.waits = _EXPECTS.search(head) is not None
            self.is_chunked = not self.waits and _CHUNKED.search(head) is not None
            length = None if self.waits or self.is_chunked else _LENGTH.search(head)
            self.needed_bytes = end + len(HEAD_END) + (int(length[1]) if length else 0)
        if len(self.received) >= BUFFER_BYTES:
            return True
        if self.needed_bytes is None:
            return False
        if self.is_chunked:
            # Trailers, or the next request, may follow the last chunk.
            first = max(self.needed_bytes - 2, start - LAST_CHUNK_BYTES)
            return _LAST_CHUNK.search(self.received, first) is not None
        return len(self.received) >= self.needed_bytes or self.needed_bytes > BUFFER_BYTES

    @property
    def read_seconds(self) -> float:
        """How long a thread may wait for the rest of this request."""
        if self.waits:
            return RECEIVE_SECONDS
        is_large = len(self.received) >= BUFFER_BYTES or (self.needed_bytes or 0) > BUFFER_BYTES
        return LARGE_BODY_SECONDS if is_large else REST_SECONDS


class BufferedWorker(ThreadWorker):  # type: ignore[misc]
    """`--worker-class app.gunicorn_worker.BufferedWorker`. TLS belongs to the proxy in front; it is not supported. No
    option and no variable of gunicorn makes it believe a forwarded header.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for name, value in BELIEVED_OF_PROXIES.items():
            self.cfg.set(name, value)
        # Connections that were answered for the last time, in the order of their time-outs.
        self._lingering: deque[BufferedConnection] = deque()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM. Answers without an end are told in the main loop, since a signal handler must take no lock."""
        if self.alive:
            self.method_queue.defer(is_stopping.set)
        super().handle_exit(sig, frame)

    def accept(self, listener: Any) -> None:
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        # A time-out of the kernel: Python's own would cost two system calls for each response.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", STALLED_CLIENT_SECONDS, 0))
        self.nr_conns += 1
        connection = BufferedConnection(self.cfg, client, address, listener.getsockname())
        self.poller.register(client, EVENT_READ, partial(self.on_pending_socket_readable, connection))
        self._await(connection)

    def on_client_socket_readable(self, conn: BufferedConnection, client: socket.socket) -> None:
        """A kept connection has the first bytes of its next request, or was closed."""
        self.keepalived_conns.remove(conn)
        if not self._receive(conn, client):
            self.poller.modify(client, EVENT_READ, partial(self.on_pending_socket_readable, conn))
            self._await(conn)

    def on_pending_socket_readable(self, conn: BufferedConnection, client: socket.socket) -> None:
        """A connection has the first or further bytes of an unfinished request, or was closed."""
        if self._receive(conn, client):
            self.pending_conns.remove(conn)

    def _receive(self, conn: BufferedConnection, client: socket.socket) -> bool:
        """Read what is there. A complete request goes to a thread, and a closed connection is forgotten; False if the
        connection must be read again.
        """
        try:
            received = client.recv(BUFFER_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            received = b""
        if received and not conn.add(received):
            return False
        self.poller.unregister(client)
        if received:
            self.enqueue_req(conn)
        else:
            self._close(conn)
        return True

    def handle(self, conn: BufferedConnection) -> Any:
        """Runs in a thread."""
        conn.init()
        unreader = conn.parser.unreader
        unreader.deadline = time.monotonic() + conn.read_seconds
        unreader.unread(bytes(conn.received))
        conn.clear()
        return super().handle(conn)

    def finish_request(self, conn: BufferedConnection, fs: Future[Any]) -> None:
        """Runs in the main loop. gunicorn would wait here for each client to close its last connection. This worker
        reads on meanwhile, so that the end of the answer is not lost, and closes the connection after a while.
        """
        if not fs.cancelled() and fs.exception() is None and fs.result():
            super().finish_request(conn, fs)
            return
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, EVENT_READ, partial(self._read_past_the_end, conn))
        except (OSError, ValueError):  # It is closed already.
            self._close(conn)
            return
        conn.timeout = time.monotonic() + LINGER_SECONDS
        self._lingering.append(conn)

    def _read_past_the_end(self, conn: BufferedConnection, client: socket.socket) -> None:
        """What an answered client still sends is not read as a request. It ends, or has sent enough."""
        try:
            received = client.recv(BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        conn.discarded_bytes += len(received)
        if not received or conn.discarded_bytes >= BUFFER_BYTES:
            self._lingering.remove(conn)
            self.poller.unregister(client)
            self._close(conn)

    def murder_pending(self) -> None:
        super().murder_pending()
        while self._lingering and self._lingering[0].timeout <= time.monotonic():
            conn = self._lingering.popleft()
            self.poller.unregister(conn.sock)
            self._close(conn)

    def _close(self, conn: BufferedConnection) -> None:
        self.nr_conns -= 1
        conn.close()

    def _keepalive_after(self, conn: BufferedConnection, keepalive: bool) -> bool:
        """A body that the application did not read ends the connection, unless the rest of it is there already."""
        if not keepalive:
            return False
        deadline = time.monotonic() + DISCARD_SECONDS
        conn.parser.unreader.deadline = deadline
        return bool(conn.parser.finish_body(deadline=deadline))

    def _await(self, conn: BufferedConnection) -> None:
        """Let the main loop close the connection if its request is not complete in time."""
        conn.timeout = time.monotonic() + RECEIVE_SECONDS
        self.pending_conns.append(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """A stopping worker waits for unfinished requests no longer than for the next one of a kept connection."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)
