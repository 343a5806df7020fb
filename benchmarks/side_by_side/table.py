"""How many times as long others take as effnet, from what `cpu_speed.py` wrote."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Ratio(NamedTuple):
    """How many times as long another way takes as ours, round by round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(case: Mapping[str, Any], name: str, own: str = "effnet") -> Ratio:
    """Compare a way with one of ours; above 1, ours is faster."""
    seconds = case["seconds"]
    values = [other / mine for other, mine in zip(seconds[name], seconds[own], strict=True)]
    return Ratio(statistics.median(values), min(values), max(values))


def fastest(case: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return the way that takes the least time; None where there is none."""
    return min(names, key=lambda name: statistics.median(case["seconds"][name]), default=None)


def table(report: Mapping[str, Any]) -> str:
    """Return what was measured as Markdown, one table for training steps and one for answers."""
    parts = []
    for kind, title in (("train", "Training steps"), ("infer", "Answers")):
        cases = [case for case in report["cases"].values() if case["kind"] == kind]
        if cases:
            parts.append("\n".join(_lines(cases, title)))
    return "\n\n".join(parts)


def _lines(cases: list[Mapping[str, Any]], title: str) -> Iterable[str]:
    names = list(dict.fromkeys(name for case in cases for name in case["seconds"] if name != "effnet"))
    yield f"| {title}: times as long | effnet, ms | images/s | {' | '.join(names)} |"
    yield "| --- |" + " ---: |" * (len(names) + 2)
    for case in cases:
        own = statistics.median(case["seconds"]["effnet"])
        others = [str(ratio(case, name)) if name in case["seconds"] else "" for name in names]
        head = (
            f"{case['key'].removeprefix(case['kind']).strip()} | {own * 1e3:.1f} | {case['batch'] / own:.1f}"
        )
        yield f"| {head} | {' | '.join(others)} |"
