"""HTTP that does not wait for ever: limits of time and size for what comes before a request's body."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 32 * 1024
"""Of the request line and headers."""


class PatientProtocol(HttpToolsProtocol):
    """A connection that ends where a request does not arrive in time, has too large a head, or is not read.

    uvicorn reads heads of any length, and waits for ever for their end, and for a client to read a response.
    While the application reads a body, it keeps the time itself.
    """

    timeout_s = 30.0
    """From the connection, or the first byte of a later request, to the end of the request; and for a client
    to read the next part of a response."""

    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _is_head = False
    _is_new = False
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:  # noqa: D102, ANN401 - as the base class
        super().connection_made(transport)
        self._start_timer()
        connection = transport.get_extra_info("socket")
        if connection is None:
            return
        # asyncio does this only for sockets that name their protocol, which those of a listener do not; a
        # body would wait for the client's delayed acknowledgement of the head, some 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # For what the system still has to send when all has been written.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * self.timeout_s))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._is_new = False
        super().data_received(data)
        # Of bytes in which a head begins, some may belong to requests before it.
        self._head_bytes = self._head_bytes + len(data) if self._is_head and not self._is_new else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large", b"the head of the request is too large")

    def on_message_begin(self) -> None:  # noqa: D102
        super().on_message_begin()
        self._is_head = self._is_new = True
        self._start_timer()

    def on_headers_complete(self) -> None:  # noqa: D102
        self._is_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:  # noqa: D102
        self._stop_timer()
        super().on_message_complete()

    def pause_writing(self) -> None:  # noqa: D102
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.timeout_s, self.transport.abort)

    def resume_writing(self) -> None:  # noqa: D102
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.timeout_s, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self._is_head:
            self._refuse(b"408 Request Timeout", b"the request did not arrive in time")
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _refuse(self, status: bytes, sentence: bytes) -> None:
        """Answer what never reaches the application."""
        if self.transport.is_closing():
            return
        body = b'{"error":"' + sentence + b'"}'
        lines = (b"HTTP/1.1 " + status, b"content-type: application/json", b"connection: close")
        head = b"\r\n".join((*lines, b"content-length: %d" % len(body), b"", b""))
        self.transport.write(head + body)
        self.transport.close()
