"""The time that training takes: by the wall and by the processor, without that of looking at the result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Spent(NamedTuple):
    """Seconds since the beginning."""

    wall: float
    cpu: float
    """Of all threads and child processes."""


def _now() -> Spent:
    times = os.times()
    return Spent(time.perf_counter(), sum(times[:4]))


class RaceClock:
    """Runs from its making on, except while it is stopped."""

    def __init__(self) -> None:
        self._began = _now()
        self._left_out = Spent(0.0, 0.0)

    @property
    def spent(self) -> Spent:
        """What training has taken so far."""
        now = _now()
        return Spent(*(n - b - left for n, b, left in zip(now, self._began, self._left_out, strict=True)))

    def leave_out_since(self, spent: Spent) -> None:
        """Act as if it had been stopped when it showed this."""
        now = self.spent
        self._left_out = Spent(
            *(l + n - s for l, n, s in zip(self._left_out, now, spent, strict=True))  # noqa: E741
        )

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Leave out what is done in a ``with`` block."""
        before = self.spent
        yield
        self.leave_out_since(before)


class Story:
    """What happened when: points of the clock by step, and accuracies.

    Args:
        clock: Of the run.
    """

    def __init__(self, clock: RaceClock) -> None:
        self.clock = clock
        self.points: list[dict[str, Any]] = []
        self.curve: list[dict[str, Any]] = []

    def note(self, *, step: int, image_size: int, images: int) -> Spent:
        """Note that so many steps are done, the last ones at this size.

        Args:
            step: Steps done.
            image_size: Pixels.
            images: Trained on so far.
        """
        spent = self.clock.spent
        self.points.append(
            {"step": step, "image_size": image_size, "images": images, "wall": spent.wall, "cpu": spent.cpu}
        )
        return spent

    def judge(self, top1: float) -> None:
        """Note the accuracy at the last point."""
        last = self.points[-1]
        self.curve.append({key: last[key] for key in ("step", "images", "wall", "cpu")} | {"top1": top1})
