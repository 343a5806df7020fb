"""HTTP that does not wait for ever: limits of time and size for what comes before a request's body."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 32 * 1024
"""Of the request line and headers."""


class PatientProtocol(HttpToolsProtocol):
    """A connection that is closed when a request does not arrive in time, or its head is too large.

    uvicorn reads heads of any length, and waits for their end for ever. While the application reads a body,
    it keeps the time itself.
    """

    read_timeout_s = 30.0
    """From the connection, or the first byte of a later request, to the end of the request."""

    _timer: asyncio.TimerHandle | None = None
    _is_head = False
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:  # noqa: D102, ANN401 - as the base class
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_head else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(b"431 Request Header Fields Too Large", b"the head of the request is too large")

    def on_message_begin(self) -> None:  # noqa: D102
        super().on_message_begin()
        self._is_head = True
        self._start_timer()

    def on_headers_complete(self) -> None:  # noqa: D102
        self._is_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:  # noqa: D102
        self._stop_timer()
        super().on_message_complete()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.read_timeout_s, self._give_up)

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
