"""The input pipeline, from `effnet bench input`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effnet.reporting.chart import Chart
from results_page.section import (
    OURS,
    RIVAL,
    Bar,
    Section,
    Table,
    bars,
    command_of,
    number,
    read,
    section_of,
)

SETS = (("input-photos.json", "photos"), ("input-flowers.json", "flowers"))
GOALS = {"crop": 2.0, "crop and RandAugment": 2.5, "RandAugment alone": 3.0}
"""Of ten epochs from the original files."""
TIMM = "timm: Pillow, bicubic"
_UNIT = "times timm's"


def sections(folder: Path) -> list[Section]:
    """Return a section for each set of photos that has been measured."""
    found = []
    for file, name in SETS:
        report = read(folder, file)
        if report is None:
            continue
        charts: list[Chart] = []
        for task in GOALS:
            sizes = sorted({row["image_size"] for row in report["rows"] if row["task"] == task})
            for is_copy in (False, True):
                for size in sizes:
                    _beside(_of(report, task, size), task, size, charts, is_copy=is_copy)
        found.append(
            section_of(
                report,
                folder / file,
                anchor=f"input-{name}",
                title=f"Input pipeline: {name}",
                says=(
                    f"Images a second of one core, in multiples of timm's default pipeline, medians "
                    f"of {report['rounds']} "
                    "rounds in turns, with the smallest and the largest. Images of "
                    f"{report['mean_bytes'] / 1000:.0f} KB on average. The goal is that of ten epochs."
                ),
                command=f"make bench-input DATA={name}",
                charts=charts,
                tables=(_table(report),),
                notes=(f"As it was run: {command_of(report, '')}", *_missing(report)),
            )
        )
    return found


def _of(report: Mapping[str, Any], task: str, size: int) -> list[Mapping[str, Any]]:
    return [row for row in report["rows"] if (row["task"], row["image_size"]) == (task, size)]


def _beside(rows: list[Mapping[str, Any]], task: str, size: int, into: list[Chart], *, is_copy: bool) -> None:
    """Draw who reads the original files, or who reads copies made beforehand."""
    shown = [
        _bar(row)
        for row in rows
        if row["method"] != TIMM and not row["method"].startswith("limit") and _reads_copies(row) == is_copy
    ]
    if shown:
        title = f"{task[0].upper()}{task[1:]}, {size} px{', from copies' if is_copy else ''}"
        goal = None if is_copy else GOALS[task]
        bars(shown, title=title, unit=_UNIT, line=True, goal=goal, into=into)


def _reads_copies(row: Mapping[str, Any]) -> bool:
    return "store" in row["method"] or "copies" in row["method"]


def _bar(row: Mapping[str, Any]) -> Bar:
    low, high = row["ratio_range"]
    series = OURS if row["method"].startswith("effnet") else RIVAL
    return Bar(name=_short(row["method"]), value=row["ratio"], low=low, high=high, series=series)


def _short(method: str) -> str:
    for long, short in (
        ("with antialias, as timm", "as timm"),
        ("without an index", "no index"),
        ("its own file, ", ""),
        ("region decoding", "region"),
        ("Pillow, bilinear, float32", "Pillow"),
        ("worker process", "worker"),
        ("first epoch", "epoch 1"),
        ("10 epochs from ", ""),
    ):
        method = method.replace(long, short)
    return method


def _table(report: Mapping[str, Any]) -> Table:
    columns = list(dict.fromkeys((row["task"], row["image_size"]) for row in report["rows"]))
    methods = list(dict.fromkeys(row["method"] for row in report["rows"]))
    at = {(row["task"], row["image_size"], row["method"]): row for row in report["rows"]}
    lines = [(method, *(_cell(at.get((*column, method))) for column in columns)) for method in methods]
    head = ("images/s (times timm's)", *(f"{task}, {size} px" for task, size in columns))
    return Table(head=head, rows=tuple(lines))


def _cell(row: Mapping[str, Any] | None) -> str:
    return f"{number(row['median'], 0)} ({row['ratio']:.2f})" if row else "-"


def _missing(report: Mapping[str, Any]) -> tuple[str, ...]:
    reasons = sorted({f"{item['method']} ({item['task']}): {item['reason']}." for item in report["missing"]})
    return ("Left out: " + " ".join(reasons),) if reasons else ()
