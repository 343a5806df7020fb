"""Time that never runs backwards."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds since a start; where the clock is set back, it goes on from 0."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def restart(self) -> None:
        """Start anew."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start; never negative."""
        now = time.monotonic()
        self._started = min(self._started, now)
        return now - self._started
