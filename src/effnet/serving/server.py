"""From runs to a service that listens, and that loses nothing when it is told to stop."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from effnet.config.serve import ServeConfig
from effnet.errors import UserError
from effnet.evaluation.predictor import Predictor
from effnet.serving.app import create_app
from effnet.serving.protocol import PatientProtocol
from effnet.serving.served import ServedModel
from effnet.serving.service import Service


def serve(
    predictors: Sequence[tuple[str, Predictor]],
    config: ServeConfig,
    *,
    token: str | None = None,
    say: Callable[[str], None] = print,
    log: Callable[[str], None] | None = None,
) -> bool:
    """Answer requests until SIGTERM or SIGINT, and then those that have been accepted.

    Args:
        predictors: Names and networks, see `names_of`.
        config: Address, threads, limits.
        token: What clients must send; None: nothing.
        say: Told where the service listens, and how it ended.
        log: Given the lines of the access log.

    Returns:
        Whether all that was accepted has been answered.

    Raises:
        UserError: The address cannot be listened at.
    """
    listener = _listen(config)
    service = Service(
        [ServedModel(name, predictor, max_pixels=config.max_pixels) for name, predictor in predictors], config
    )
    server = DrainingServer(service, token=token, log=log)
    for line in _greeting(service, listener, token):
        say(line)
    server.run(sockets=[listener])
    if service.failure:
        raise service.failure
    if server.cut_off:
        say(f"stopped; {server.cut_off} requests were cut off after {config.drain_s:g} seconds")
    else:
        say("stopped; every request that was accepted has been answered")
    return not server.cut_off


def names_of(sources: Sequence[str]) -> list[str]:
    """Return short names for runs and files, all different: the last parts of their paths."""
    names: list[str] = []
    for source in sources:
        path = Path(source)
        name = (path.stem if path.is_file() else path.name) or source
        taken = sum(other.partition("~")[0] == name for other in names)
        names.append(f"{name}~{taken + 1}" if taken else name)
    return names


class DrainingServer(uvicorn.Server):
    """A server that, told to stop, sends clients elsewhere, then accepts no more, then answers what is left.

    Args:
        service: That answers.
        token: What clients must send.
        log: Given the lines of the access log.
    """

    def __init__(
        self, service: Service, *, token: str | None = None, log: Callable[[str], None] | None = None
    ) -> None:
        config = service.config
        protocol = type("Protocol", (PatientProtocol,), {"timeout_s": config.read_timeout_s})
        super().__init__(
            uvicorn.Config(
                create_app(service, token=token, log=log),
                http=protocol,
                loop="asyncio",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=config.max_connections,
                timeout_graceful_shutdown=config.drain_s,  # type: ignore[arg-type] # seconds of `wait_for`
            )
        )
        # Of hostile requests there are many, and of each the client is told.
        for name in ("uvicorn.error", "python_multipart"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._service = service
        self._close_at: float | None = None
        self.cut_off = 0
        """Requests that had been accepted and were not answered in time."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; a second signal does not wait for load balancers, a third not for answers."""
        self._service.is_draining = True
        if self.should_exit:
            self.force_exit = True
        elif self._close_at is not None or sig == signal.SIGINT:
            self.should_exit = True
        else:
            self._close_at = time.monotonic() + self._service.config.drain_delay_s

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop accepting."""
        if self._service.failure:
            self.should_exit = True
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def _wait_tasks_to_complete(self) -> None:
        try:
            await super()._wait_tasks_to_complete()
        finally:
            self.cut_off = len(self.server_state.tasks)


def _listen(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise UserError(
            f"cannot listen at {config.host} port {config.port}: {reason}; choose others with --host "
            "and --port"
        ) from None


def _greeting(service: Service, listener: socket.socket, token: str | None) -> list[str]:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    lines = [f"serving {', '.join(service.models)} at http://{shown}:{port}/"]
    if token is None and host not in ("127.0.0.1", "::1"):
        lines.append("everyone who can reach this address may use it; --token-file asks for a token")
    return lines
