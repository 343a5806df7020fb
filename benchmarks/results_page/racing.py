"""Time to accuracy, from `time_to_accuracy.py`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from race.curves import Run, of_race, ratios, shares_of_sizes, spread_of, track

from effnet.reporting.chart import INK, Chart, panel, series_colour
from results_page.section import (
    OURS,
    RIVAL,
    Bar,
    Section,
    Table,
    bars,
    hardware_of,
    number,
    read,
    section_of,
)

FILE, GPU_FILE = "time-to-accuracy.json", "time-to-accuracy-gpu.json"
FIXED = "fixed"
ARMS = {
    FIXED: "fixed size",
    "half": "fixed, half as long",
    "paper": "progressive, paper's",
    "better": "progressive, better",
    "lower": "progressive, ends lower",
    "composer": "Composer's resizing",
    "timm": "timm's progressive",
    "resize": "progressive, not adaptive",
    "random": "random sizes, not adaptive",
    "random-adaptive": "random sizes, adaptive",
}
"""What the ways to choose the sizes are called here."""
GOAL = 0.5
COMMAND = "make bench-time-to-accuracy DATA=folder ARGS=--weights=FILE"
GPU_COMMAND = "python benchmarks/time_to_accuracy.py folder --device cuda"


def sections(folder: Path) -> list[Section]:
    """Return a section for each data set."""
    reports = {file: read(folder, file) for file in (FILE, GPU_FILE)}
    return [
        section
        for file, report in reports.items()
        if report is not None
        for section in _sections(report, folder / file)
    ]


def _sections(report: Mapping[str, Any], path: Path) -> list[Section]:
    found, is_gpu = [], report.get("device") == "cuda"
    begins = "from images on the device" if is_gpu else "from opening the images"
    ends = "kernels were compiled before" if is_gpu else "compilation included"
    turns = "one run at a time" if is_gpu else "one thread a run"
    for race, settings in report["races"].items():
        arms = of_race(report, race)
        if not arms.get(FIXED):
            continue
        charts: list[Chart] = []
        rows = [
            _bar(ARMS[arm], ratios(runs, arms[FIXED], "wall"), arm)
            for arm, runs in arms.items()
            if arm != FIXED
        ]
        if rows:
            bars(
                rows,
                title="Seconds by the clock",
                unit="of the fixed size's",
                line=True,
                goal=GOAL,
                into=charts,
            )
        rows = [_bar(ARMS[arm], [100 * run["top1"] for run in runs], arm) for arm, runs in arms.items()]
        bars(rows, title="Top-1 at the end", unit="%", digits=1, into=charts)
        _curves(arms, charts)
        loads = [run["load"] for runs in arms.values() for run in runs]
        found.append(
            section_of(
                report,
                path,
                anchor=f"time-to-accuracy-{race}",
                title=f"Time to accuracy: {settings['title']}",
                says=(
                    f"All that training takes, {begins} to the last checkpoint, {ends}; "
                    "the moving average is judged at the full size. Means over seeds, with the "
                    "smallest and the "
                    "largest; times are divided by those of the twin of the same seed at the fixed size."
                ),
                command=GPU_COMMAND if is_gpu else COMMAND,
                hardware=hardware_of(report) + f", {turns}, load {min(loads):.1f} to {max(loads):.1f}",
                charts=charts,
                tables=(_table(arms), _stages(arms)),
            )
        )
    return found


def _bar(name: str, values: Sequence[float], arm: str) -> Bar:
    series = OURS if arm in {"paper", "better", "lower"} else RIVAL
    return Bar(name=name, value=statistics.mean(values), low=min(values), high=max(values), series=series)


def _curves(arms: Mapping[str, Sequence[Run]], into: list[Chart]) -> None:
    label = "accuracy against seconds of every run"
    with panel(title="Top-1 on the way", label=label, into=into, height=260) as axes:
        for place, (arm, runs) in enumerate(arms.items()):
            for number_, run in enumerate(runs):
                seconds, top1 = track(run)
                name = ARMS[arm] if number_ == 0 else None
                colour = series_colour(place)
                axes.plot(seconds, top1, color=colour, linewidth=1.2, label=name)
                axes.plot(seconds[-1], top1[-1], "o", color=colour, markersize=4)
        axes.set_xlabel("seconds of training")
        axes.set_ylabel("%")
        axes.legend(fontsize=9, frameon=False, labelcolor=INK, loc="lower right")


def _table(arms: Mapping[str, Sequence[Run]]) -> Table:
    lines = []
    for arm, runs in arms.items():
        top1 = [100 * run["top1"] for run in runs]
        spread = f" ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
        lines.append(
            (
                ARMS[arm],
                str(len(runs)),
                f"{statistics.mean(top1):.2f}{spread} %",
                number(statistics.mean(run["wall"] for run in runs), 0),
                spread_of(ratios(runs, arms[FIXED], "wall")),
                spread_of(ratios(runs, arms[FIXED], "cpu")),
            )
        )
    head = ("", "seeds", "top-1", "seconds", "of the fixed size's, by the clock", "by the processor")
    return Table(title="Accuracy and time", head=head, rows=tuple(lines))


def _stages(arms: Mapping[str, Sequence[Run]]) -> Table:
    shares = {arm: shares_of_sizes(runs) for arm, runs in arms.items()}
    sizes = sorted({size for found in shares.values() for size in found})
    lines = [
        (ARMS[arm], *(str(found[size]) if size in found else "-" for size in sizes))
        for arm, found in shares.items()
    ]
    head = ("seconds (share of the images) at", *(f"{size} px" for size in sizes))
    return Table(title="Time of each size", head=head, rows=tuple(lines))
