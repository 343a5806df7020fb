"""What the runs say beside each other; numbers only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Run = Mapping[str, Any]
"""As a worker wrote it."""


class Mean(NamedTuple):
    """Of several seeds."""

    mean: float
    spread: float
    """Sample standard deviation; 0 for one seed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Return that of some values."""
        return cls(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)

    def text(self, digits: int, factor: float = 1.0) -> str:
        """Return both as a text."""
        return f"{self.mean * factor:.{digits}f} ± {self.spread * factor:.{digits}f}"


def by_size(points: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return seconds and images of each image size, ascending.

    Args:
        points: Of a run, in order; what lies between two is of the later one's size.
    """
    sums: dict[int, dict[str, float]] = {}
    before: Mapping[str, Any] | None = None
    for point in points:
        if before is not None:
            entry = sums.setdefault(point["image_size"], {"wall": 0.0, "cpu": 0.0, "images": 0, "steps": 0})
            for key, old in (("wall", "wall"), ("cpu", "cpu"), ("images", "images"), ("steps", "step")):
                entry[key] += point[old] - before[old]
        before = point
    return [{"image_size": size} | sums[size] for size in sorted(sums)]


def seconds_to(run: Run, top1: float, clock: str = "cpu") -> float | None:
    """Return when a run was first seen to be at least so accurate; None: it never was.

    What counts is where it was looked at, with nothing read between; its end is judged by all images.
    """
    on_the_way = [point for point in run["curve"] if point["step"] < run["steps"]]
    reached = [point[clock] for point in on_the_way if point["top1"] >= top1]
    return min(reached, default=run[clock] if run["top1"] >= top1 else None)


def ratios(runs: Sequence[Run], fixed: Sequence[Run], clock: str = "cpu") -> list[float]:
    """Return how many times as long as its twin at the fixed size each run took, seed by seed."""
    twin = {run["seed"]: run for run in fixed}
    return [run[clock] / twin[run["seed"]][clock] for run in runs if run["seed"] in twin]


def differences(runs: Sequence[Run], fixed: Sequence[Run]) -> list[float]:
    """Return by how much each run is more accurate than its twin, as a fraction."""
    twin = {run["seed"]: run for run in fixed}
    return [run["top1"] - twin[run["seed"]]["top1"] for run in runs if run["seed"] in twin]
