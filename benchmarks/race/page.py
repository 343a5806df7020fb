"""Tables and a picture of what was run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from marked import filled

from effnet.files import whole_file
from race.case import ARMS
from race.curves import (
    Mean,
    Run,
    differences,
    of_race,
    ratios,
    seconds_to,
    shares_of_sizes,
    spread_of,
    track,
)

mpl.use("Agg")
import matplotlib.pyplot as plt

BEGIN, END = "<!-- time to accuracy: begin -->", "<!-- time to accuracy: end -->"
COLOURS = {
    "fixed": "#444444",
    "half": "#aaaaaa",
    "paper": "#1f77b4",
    "better": "#d62728",
    "composer": "#2ca02c",
    "timm": "#ff7f0e",
    "lower": "#9467bd",
    "resize": "#17becf",
    "random": "#bcbd22",
    "random-adaptive": "#8c564b",
}


def stated_accuracy(fixed: Sequence[Run]) -> float:
    """Return the accuracy to be reached: the mean of the fixed size, rounded down to whole percent."""
    return math.floor(statistics.mean(run["top1"] for run in fixed) * 100) / 100


def table(report: dict[str, Any]) -> str:
    """Return Markdown: for each race what its arms reached, and where their time went."""
    # On a GPU the processor only tells another one what to do.
    parts, clock = [], "wall" if report.get("device") == "cuda" else "cpu"
    for race, settings in report["races"].items():
        arms = of_race(report, race)
        if "fixed" in arms:
            parts.append(f"**{settings['title']}**\n\n{_reached(arms, clock)}\n\n{_stages(arms)}")
    return "\n\n".join(parts)


def _reached(arms: dict[str, list[Run]], clock: str) -> str:
    fixed = arms["fixed"]
    goal = stated_accuracy(fixed)
    lines = [
        "| | images | top-1 | against its twin, points | seconds | of the fixed size's: by the clock | "
        f"by the processor | first seen at {goal:.0%}, of the fixed size's time |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm in ARMS:
        runs = arms.get(arm.name)
        if not runs:
            continue
        points = [difference * 100 for difference in differences(runs, fixed)]
        each = ", ".join(f"{value:+.1f}" for value in points)
        mean = f"{statistics.mean(points):+.2f} ({each})" if arm.name != "fixed" and points else ""
        lines.append(
            f"| {arm.label} | {runs[0]['images']:,} | "
            f"{Mean.of([run['top1'] for run in runs]).text(2, 100)} % | {mean} | "
            f"{Mean.of([run['wall'] for run in runs]).text(int(clock == 'wall'))} | "
            f"{spread_of(ratios(runs, fixed, 'wall'))} | {spread_of(ratios(runs, fixed, 'cpu'))} | "
            f"{_first_seen(runs, fixed, goal, clock)} |"
        )
    return "\n".join(lines)


def _first_seen(runs: Sequence[Run], fixed: Sequence[Run], goal: float, clock: str) -> str:
    whole = statistics.mean(run[clock] for run in fixed)
    times = [seconds_to(run, goal, clock) for run in runs]
    return ", ".join("never" if time is None else f"{time / whole:.2f}" for time in times)


def _stages(arms: dict[str, list[Run]]) -> str:
    lines = [
        "| | seconds by the clock at each size, px: seconds (share of the images) | before the first step |",
        "| --- | --- | --- |",
    ]
    for arm in ARMS:
        runs = arms.get(arm.name)
        if not runs:
            continue
        stages = [f"{px}: {share}" for px, share in shares_of_sizes(runs).items()]
        start = statistics.mean(run["start"]["wall"] for run in runs)
        lines.append(f"| {arm.label} | {'; '.join(stages)} | {start:.1f} |")
    return "\n".join(lines)


def picture(report: dict[str, Any], path: Path) -> None:
    """Draw accuracy over seconds: every seed, its end as a dot."""
    races = [race for race in report["races"] if of_race(report, race)]
    if not races:
        return
    figure, panels = plt.subplots(1, len(races), figsize=(6.2 * len(races), 4.4), squeeze=False)
    for panel, race in zip(panels[0], races, strict=True):
        arms = of_race(report, race)
        for arm in ARMS:
            for number, run in enumerate(arms.get(arm.name, [])):
                seconds, top1 = track(run)
                label = arm.label if number == 0 else None
                panel.plot(seconds, top1, color=COLOURS[arm.name], linewidth=1.1, alpha=0.8, label=label)
                panel.plot(seconds[-1], top1[-1], "o", color=COLOURS[arm.name], markersize=5)
        if "fixed" in arms:
            panel.axhline(100 * stated_accuracy(arms["fixed"]), color="#888888", linewidth=0.8, linestyle=":")
            half = statistics.mean(run["wall"] for run in arms["fixed"]) / 2
            panel.axvline(half, color="#888888", linewidth=0.8, linestyle=":")
        panel.set_xlabel("seconds of training, evaluation left out")
        panel.set_ylabel("top-1 of the moving average, %")
        panel.set_title(report["races"][race]["title"], fontsize=9)
        panel.grid(alpha=0.25)
        panel.legend(fontsize=7, loc="lower right")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def fill(document: Path, text: str) -> None:
    """Put a text between the marks of a document.

    Raises:
        ValueError: It has no marks.
    """
    whole = filled(document.read_text(encoding="utf-8"), (BEGIN, END), f"\n{text}\n")
    with whole_file(document) as temporary:
        temporary.write_text(whole, encoding="utf-8")
