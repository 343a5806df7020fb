"""What happens around every request: numbers, a line of the log, headers that browsers obey."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from effnet.serving.service import Service

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""No page of this service loads anything from elsewhere, and none elsewhere shows it."""


class Observe:
    """Counts, measures and logs requests, and adds headers to their responses.

    Args:
        app: What answers.
        service: Whose metrics count; while it is draining, connections are closed behind their responses.
        log: Where lines go, as JSON objects; None: nowhere.
    """

    def __init__(self, app: ASGIApp, service: Service, log: Callable[[str], None] | None = None) -> None:
        self._app = app
        self._service = service
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, size = time.perf_counter(), 500, 0

        async def observed(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                if self._service.is_draining:
                    headers["Connection"] = "close"
            else:
                size += len(message.get("body", b""))
            await send(message)

        metrics = self._service.metrics
        metrics.in_flight.inc()
        try:
            await self._app(scope, receive, observed)
        finally:
            metrics.in_flight.dec()
            seconds, route = time.perf_counter() - start, _route(scope)
            metrics.requests.labels(route, status).inc()
            metrics.seconds.labels(route).observe(seconds)
            if self._log:
                self._log(_line(scope, status, size, seconds))


def _route(scope: Scope) -> str:
    """Return the route of a request; whatever clients make up is one route."""
    return str(getattr(scope.get("route"), "path", None) or "other")


def _line(scope: Scope, status: int, size: int, seconds: float) -> str:
    client = scope.get("client")
    return json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "bytes": size,
            "ms": round(seconds * 1000, 1),
        }
    )
