"""The section of what is served: where, how much at a time, and what is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG
from effnet.config.ranges import NonNegative, NonNegativeInt, Positive, PositiveInt

MEGABYTE = 2**20


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class ServeConfig:
    """A service that names the classes of images, and its limits."""

    host: str = "127.0.0.1"
    """Address to listen at; ``0.0.0.0`` and ``::`` are all of this machine."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """0: any that is free."""
    max_batch: PositiveInt = 16
    """Most images in one forward pass."""
    max_wait_ms: NonNegative = 0.0
    """Milliseconds that a batch which is not full waits for more images; meanwhile a processor is idle."""
    threads: NonNegativeInt = 0
    """Of one forward pass; 0: one for each processor."""
    decode_threads: NonNegativeInt = 0
    """That decode images; 0: one for each processor."""
    max_bytes: PositiveInt = 32 * MEGABYTE
    """Largest body of a request."""
    max_held_bytes: PositiveInt = 256 * MEGABYTE
    """Of all the bodies together that are in memory."""
    max_pixels: PositiveInt = 50_000_000
    """Of one image, by its header, before anything is decoded."""
    max_images: PositiveInt = 32
    """In one request."""
    max_queue: PositiveInt = 256
    """Most images that have been accepted and not been answered."""
    max_connections: PositiveInt = 1000
    """Most connections at a time."""
    read_timeout_s: Positive = 30.0
    """Seconds in which a request must have arrived."""
    answer_timeout_s: Positive = 30.0
    """Seconds in which it must have been answered."""
    drain_delay_s: NonNegative = 1.0
    """Seconds from SIGTERM, in which ``/readyz`` fails and everything is answered, until no new connection is
    accepted; a load balancer needs them to look elsewhere."""
    drain_s: Positive = 25.0
    """Seconds after that in which what has been accepted must be answered."""
    allow_origins: tuple[str, ...] = ()
    """Whose pages may use this service from a browser, such as ``https://example.org``."""
    access_log: bool = False
    """Print one JSON object for each request."""

    def __post_init__(self) -> None:
        """Check what depends on several values."""
        if self.max_images > self.max_queue:
            raise ValueError(
                f"max_images is {self.max_images}, which max_queue, {self.max_queue}, never admits"
            )
        if self.max_bytes > self.max_held_bytes:
            raise ValueError(
                f"max_bytes is {self.max_bytes}, which max_held_bytes, {self.max_held_bytes}, never admits"
            )
