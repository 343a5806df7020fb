"""How long one call takes, of several things that take turns, so that a disturbance meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Wall time of calls, in the order of the turns."""

    batch_size: int
    """Images of a call."""
    seconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """Of a call, in milliseconds."""
        return statistics.median(self.seconds) * 1e3

    def quantile_ms(self, share: float) -> float:
        """Return the time within which that share of the calls ended, in milliseconds."""
        return float(np.quantile(self.seconds, share)) * 1e3

    def speedup_over(self, other: Latency) -> float:
        """Return how many times as fast as another this was: the median of the turns' ratios."""
        return statistics.median(its / own for own, its in zip(self.seconds, other.seconds, strict=True))


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    *,
    turns: int,
    batch_size: int,
    warm_up: int = 3,
    pause_s: float = 0.0,
    clock: Callable[[], float] | None = None,
) -> dict[str, Latency]:
    """Time each call once a turn, in the same order every turn, after some that do not count.

    Args:
        calls: What to time, by name.
        turns: How often.
        batch_size: Images of a call.
        warm_up: Turns that do not count.
        pause_s: Before each call, for threads of the last one to fall asleep.
        clock: In seconds; None: the wall's.
    """
    read = clock or time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-warm_up, turns):
        for name, call in calls.items():
            time.sleep(pause_s)
            start = read()
            call()
            if turn >= 0:
                seconds[name].append(read() - start)
    return {name: Latency(batch_size=batch_size, seconds=tuple(times)) for name, times in seconds.items()}
