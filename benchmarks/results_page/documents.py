"""Tables of speed in the documents, between their marks, from the same results as the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from marked import filled
from race.curves import of_race, ratios, spread_of
from side_by_side.table import ratio, table

from results_page import racing, speed
from results_page.section import read

_RACERS = ("half", "paper", "better", "timm")
"""Who is named in the README."""
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"


def updated(text: str, parts: Iterable[str]) -> str:
    """Return a document with other paragraphs between its marks.

    Raises:
        ValueError: It has no marks.
    """
    return filled(text, (BEGIN, END), "\n\n".join(["", *parts, ""]))


def for_readme(folder: Path) -> list[str]:
    """Return the main figures of a folder of results; what it lacks is left out."""
    return [*_cpu(read(folder, speed.FILE)), *_racing(read(folder, racing.FILE))]


def for_results(folder: Path) -> list[str]:
    """Return every figure of `cpu_speed.py`, and how it came about; nothing where there is none."""
    report = read(folder, speed.FILE)
    if report is None:
        return []
    sections = speed.sections(folder)
    goal = "dashed: 1.4, the goal beside timm's default"
    return [
        "## Speed on a processor",
        f"{sections[0].says} {sections[0].hardware}. {sections[0].versions}. {sections[0].date}.",
        f"![Training steps and answers as multiples of effnet's; {goal}](images/{speed.PICTURE})",
        table(report),
        *(f"{section.title}:\n\n" + "\n".join(f"- {note}" for note in section.notes) for section in sections),
        "```\nmake bench-cpu\n```",
    ]


def _cpu(report: Mapping[str, Any] | None) -> Iterable[str]:
    if report is None:
        return
    cases = list(report["cases"].values())
    loads = [state["load"] for case in cases for state in case["states"]]
    threads = f"{report['threads']} thread{'s' * (report['threads'] > 1)}"
    yield (
        "**On a processor** (`make bench-cpu`): how many times as long others take as effnet by default, in "
        f"single precision, medians of {report['rounds']} rounds in turns, {threads}, "
        f"{report['processor']['model']}, load {min(loads):.1f} to {max(loads):.1f}. Spreads "
        "are in [docs/benchmarks.html]"
        "(docs/benchmarks.html)."
    )
    train = [case for case in cases if case["optimizer"] == "rmsprop_tf" and "timm" in case["seconds"]]
    if train:
        lines = [
            "| training step | effnet, images/s | timm's default | timm's best | torchvision's best "
            "| Keras |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for case in train:
            others = [_ratio(case, name) for name in ("timm", "timm best", "torchvision best", "Keras")]
            lines.append(f"| {speed.name_of(case)} | {_rate(case)} | {' | '.join(others)} |")
        yield "\n".join(lines)
    infer = [case for case in cases if case["kind"] == "infer" and "timm" in case["seconds"]]
    if infer:
        lines = [
            "| answers | effnet, images/s | timm | its export in OpenVINO or ONNX Runtime "
            "| torchvision | Keras |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for case in infer:
            names = ("timm", speed.runtime(case) or "", "torchvision", "Keras")
            others = [_ratio(case, name) for name in names]
            lines.append(f"| {speed.name_of(case)} | {_rate(case)} | {' | '.join(others)} |")
        yield "\n".join(lines)


def _ratio(case: Mapping[str, Any], name: str) -> str:
    return f"{ratio(case, name).median:.2f}" if name in case["seconds"] else "-"


def _rate(case: Mapping[str, Any]) -> str:
    return f"{case['batch'] / statistics.median(case['seconds']['effnet']):.0f}"


def _racing(report: Mapping[str, Any] | None) -> Iterable[str]:
    if report is None:
        return
    lines = []
    for race, settings in report["races"].items():
        arms = of_race(report, race)
        for arm, runs in arms.items():
            if arm not in _RACERS or racing.FIXED not in arms:
                continue
            accuracies = [
                statistics.mean(100 * run["top1"] for run in found) for found in (runs, arms[racing.FIXED])
            ]
            lines.append(
                f"| {settings['title']} | {racing.ARMS[arm]} | "
                f"{spread_of(ratios(runs, arms[racing.FIXED], 'wall'))} | "
                f"{accuracies[0]:.1f} %, {accuracies[1]:.1f} % |"
            )
    if not lines:
        return
    seeds = max(len(runs) for race in report["races"] for runs in of_race(report, race).values())
    yield (
        f"**Time to accuracy** (`{racing.COMMAND}`): the time of a training beside that of the same one at a "
        f"fixed size, and what both reach; means of {seeds} seeds, smallest and largest."
    )
    head = "| | sizes | of the time | top-1, at the fixed size |\n| --- | --- | ---: | ---: |"
    yield "\n".join([head, *lines])
