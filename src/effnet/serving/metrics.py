"""What Prometheus reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one service.

    Args:
        queue_length: Returns how many images wait for a forward pass.
        images_in_service: Returns how many have been accepted and not been answered.
    """

    def __init__(self, *, queue_length: Callable[[], float], images_in_service: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self.requests = Counter(
            "effnet_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "effnet_request_seconds",
            "From the head of a request to the end of its response.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "effnet_requests_in_flight", "Requests without a response.", registry=self._registry
        )
        self._batches = Histogram(
            "effnet_batch_images",
            "Images of one forward pass.",
            ["model"],
            buckets=_IMAGES,
            registry=self._registry,
        )
        self._forward = Histogram(
            "effnet_forward_seconds",
            "Of one forward pass.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        for name, text, function in (
            ("effnet_queue_images", "Decoded images that wait for a forward pass.", queue_length),
            ("effnet_images_in_service", "Images accepted and not answered.", images_in_service),
        ):
            Gauge(name, text, registry=self._registry).set_function(function)

    @contextmanager
    def measure_batch(self, model: str, images: int) -> Iterator[None]:
        """Count a forward pass and its time."""
        start = time.perf_counter()
        yield
        self._forward.labels(model).observe(time.perf_counter() - start)
        self._batches.labels(model).observe(images)

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self._registry)
