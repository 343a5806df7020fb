"""What the runs say beside each other; numbers only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from race.case import ARMS

Run = Mapping[str, Any]
"""As a worker wrote it."""


_SHORT = 9.95
"""Seconds below which a tenth of one counts."""


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


def of_race(report: Mapping[str, Any], race: str) -> dict[str, list[Run]]:
    """Return the runs of each arm, by seed, in the order of the arms."""
    found: dict[str, list[Run]] = {arm.name: [] for arm in ARMS}
    for key, run in report["runs"].items():
        if key.split()[0] == race:
            found[run["arm"]].append(run)
    return {name: sorted(runs, key=lambda run: run["seed"]) for name, runs in found.items() if runs}


class SizeShare(NamedTuple):
    """What one image size took of a run, on average over seeds."""

    seconds: float
    """By the wall's clock."""
    images: float
    """Share of all images."""

    def __str__(self) -> str:
        return f"{self.seconds:.{int(self.seconds < _SHORT)}f} ({self.images:.0%})"


def shares_of_sizes(runs: Sequence[Run]) -> dict[int, SizeShare]:
    """Return what each image size took of some runs, ascending."""
    every = [entry for run in runs for entry in run["sizes"]]
    images = sum(run["images"] for run in runs)
    found = {}
    for size in sorted({entry["image_size"] for entry in every}):
        entries = [entry for entry in every if entry["image_size"] == size]
        found[size] = SizeShare(
            sum(entry["wall"] for entry in entries) / len(runs),
            sum(entry["images"] for entry in entries) / images,
        )
    return found


def on_the_way(run: Run) -> list[Mapping[str, Any]]:
    """Return where a run was looked at before its end, which is judged by other images."""
    return [point for point in run["curve"] if point["step"] < run["steps"]]


def track(run: Run) -> tuple[list[float], list[float]]:
    """Return the seconds by the wall's clock, and the accuracies in percent, to draw, the end included."""
    points = [*on_the_way(run), run]
    return [point["wall"] for point in points], [100 * point["top1"] for point in points]


def seconds_to(run: Run, top1: float, clock: str = "cpu") -> float | None:
    """Return when a run was first seen to be at least so accurate; None: it never was.

    What counts is where it was looked at, with nothing read between; its end is judged by all images.
    """
    reached = [point[clock] for point in on_the_way(run) if point["top1"] >= top1]
    return min(reached, default=run[clock] if run["top1"] >= top1 else None)


def ratios(runs: Sequence[Run], fixed: Sequence[Run], clock: str = "cpu") -> list[float]:
    """Return how many times as long as its twin at the fixed size each run took, seed by seed."""
    twin = {run["seed"]: run for run in fixed}
    return [run[clock] / twin[run["seed"]][clock] for run in runs if run["seed"] in twin]


def differences(runs: Sequence[Run], fixed: Sequence[Run]) -> list[float]:
    """Return by how much each run is more accurate than its twin, as a fraction."""
    twin = {run["seed"]: run for run in fixed}
    return [run["top1"] - twin[run["seed"]]["top1"] for run in runs if run["seed"] in twin]


def spread_of(values: Sequence[float]) -> str:
    """Return mean, smallest and largest as a text."""
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "-"
