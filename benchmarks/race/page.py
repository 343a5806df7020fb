"""Tables and a picture of what was run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from effnet.files import whole_file
from race.case import ARMS
from race.curves import Mean, Run, differences, ratios, seconds_to

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
}


def of_race(report: dict[str, Any], race: str) -> dict[str, list[Run]]:
    """Return the runs of each arm, by seed, in the order of the arms."""
    found: dict[str, list[Run]] = {arm.name: [] for arm in ARMS}
    for key, run in report["runs"].items():
        if key.split()[0] == race:
            found[run["arm"]].append(run)
    return {name: sorted(runs, key=lambda run: run["seed"]) for name, runs in found.items() if runs}


def stated_accuracy(fixed: Sequence[Run]) -> float:
    """Return the accuracy to be reached: the mean of the fixed size, rounded down to whole percent."""
    return math.floor(statistics.mean(run["top1"] for run in fixed) * 100) / 100


def table(report: dict[str, Any]) -> str:
    """Return Markdown: for each race what its arms reached, and where their time went."""
    parts = []
    for race, settings in report["races"].items():
        arms = of_race(report, race)
        if "fixed" in arms:
            parts.append(f"**{settings['title']}**\n\n{_reached(arms)}\n\n{_stages(arms)}")
    return "\n\n".join(parts)


def _reached(arms: dict[str, list[Run]]) -> str:
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
            f"{Mean.of([run['wall'] for run in runs]).text(0)} | "
            f"{_ratio(ratios(runs, fixed, 'wall'))} | {_ratio(ratios(runs, fixed, 'cpu'))} | "
            f"{_first_seen(runs, fixed, goal)} |"
        )
    return "\n".join(lines)


def _ratio(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""


def _first_seen(runs: Sequence[Run], fixed: Sequence[Run], goal: float) -> str:
    whole = statistics.mean(run["cpu"] for run in fixed)
    times = [seconds_to(run, goal) for run in runs]
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
        sizes = sorted({size["image_size"] for run in runs for size in run["sizes"]})
        stages = []
        for px in sizes:
            entries = [size for run in runs for size in run["sizes"] if size["image_size"] == px]
            seconds = sum(entry["wall"] for entry in entries) / len(runs)
            share = sum(entry["images"] for entry in entries) / sum(run["images"] for run in runs)
            stages.append(f"{px}: {seconds:.0f} ({share:.0%})")
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
                on_the_way = [point for point in run["curve"] if point["step"] < run["steps"]]
                seconds = [*(point["wall"] for point in on_the_way), run["wall"]]
                top1 = [*(100 * point["top1"] for point in on_the_way), 100 * run["top1"]]
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
    whole = document.read_text(encoding="utf-8")
    head, begin, rest = whole.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no place between '{BEGIN}' and '{END}'")
    with whole_file(document) as temporary:
        temporary.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
