"""What the page shows of one file of results, and the bars that it is drawn with."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.reporting.chart import INK, Chart, panel, series_colour

RIVAL, OURS, OURS_TOO = 7, 0, 2
"""Colours: of others, of ours, and of what ours is beside."""
_ROW, _ENDS = 23, 58
"""Pixels of a bar, and of all that a chart has above and below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = "All figures"


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One benchmark."""

    anchor: str
    title: str
    says: str
    """What was measured and how to read it."""
    command: str
    hardware: str
    versions: str
    date: str
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A value with its spread."""

    name: str
    value: float
    low: float
    high: float
    series: int = RIVAL


def bars(
    rows: Sequence[Bar],
    *,
    title: str,
    unit: str,
    into: list[Chart],
    line: bool = False,
    goal: float | None = None,
    digits: int = 2,
) -> None:
    """Draw horizontal bars, the first on top, each with its spread and its value.

    Args:
        rows: At least one.
        title: Of the chart.
        unit: What the axis counts.
        into: Gets the chart.
        line: Whether there is one at 1, which is what all are compared with.
        goal: Where a dashed line is.
        digits: Behind the point of the values.
    """
    label = ", ".join(f"{row.name} {row.value:.{digits}f}" for row in rows)
    reach = max([row.high for row in rows] + ([goal] if goal else []) + ([1.0] if line else []))
    with panel(title=title, label=label, into=into, height=_ROW * len(rows) + _ENDS) as axes:
        places = range(len(rows))
        drawn = axes.barh(
            places,
            [row.value for row in rows],
            0.66,
            color=[series_colour(row.series) for row in rows],
            xerr=[[row.value - row.low for row in rows], [row.high - row.value for row in rows]],
            error_kw={"ecolor": INK, "elinewidth": 1.2, "capsize": 2.5},
        )
        for bar, row in zip(drawn, rows, strict=True):
            bar.set_alpha(0.45 if row.series == RIVAL else 0.85)  # So that the spread is seen on it.
        for place, row in zip(places, rows, strict=True):
            axes.text(reach * 1.04, place, f"{row.value:.{digits}f}", va="center", color=INK, fontsize=11)
        if line:
            axes.axvline(1.0, color=INK, linewidth=1.2)
        if goal:
            axes.axvline(goal, color=series_colour(1), linewidth=1.4, linestyle=(0, (4, 2)))
        axes.set_yticks(places, [row.name for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, reach * 1.2)
        axes.set_xlabel(f"{unit}; goal {goal:g}" if goal else unit)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a file of results; None where there is none."""
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def command_of(report: Mapping[str, Any], otherwise: str) -> str:
    """Return the command that a file of results names, or the one that its benchmark has."""
    command = report.get("command") or report.get("environment", {}).get("command")
    if not command:
        return otherwise
    words = [command] if isinstance(command, str) else command
    return ("python " if words[0].endswith(".py") else "") + " ".join(words)


def hardware_of(report: Mapping[str, Any]) -> str:
    """Return where it was measured, as far as the file says."""
    about = report.get("environment", {})
    model = (
        about.get("cpu_model") or report.get("hardware") or report.get("machine") or report.get("platform")
    )
    count = about.get("cpu_count") or report.get("processors")
    devices = ", ".join(about.get("devices") or [])
    threads = f"{report['threads']} threads" if report.get("threads") else ""
    found = [model or "not recorded", f"{count} processors" if count else "", devices, threads]
    return ", ".join(part for part in found if part)


def versions_of(report: Mapping[str, Any]) -> str:
    """Return the versions of what took part, as far as the file says."""
    about = report.get("environment", {})
    found = {name: about.get(name) for name in ("effnet", "torch", "python")} | report.get("versions", {})
    return ", ".join(f"{name} {version}" for name, version in found.items() if version) or "not recorded"


def date_of(report: Mapping[str, Any], path: Path) -> str:
    """Return the day of the measurement, or the day on which the file was committed."""
    found = re.match(r"\d{4}-\d\d-\d\d", str(report.get("environment", {}).get("started", "")))
    if found:
        return found[0]
    told = subprocess.run(
        ["git", "log", "-1", "--format=%cs", "--", path.name],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return f"recorded {told}" if told else "not recorded"


def section_of(
    report: Mapping[str, Any],
    path: Path,
    *,
    anchor: str,
    title: str,
    says: str,
    command: str = "",
    hardware: str = "",
    versions: str = "",
    charts: Sequence[Chart] = (),
    tables: Sequence[Table] = (),
    notes: Sequence[str] = (),
) -> Section:
    """Return a section; what is not given of command, hardware and versions is as the file says.

    Args:
        report: What the file has.
        path: Of the file.
        anchor: For links.
        title: Of the section.
        says: What was measured and how to read it.
        command: That measures it again.
        hardware: Where it was measured.
        versions: Of what took part.
        charts: On top.
        tables: Below them.
        notes: At the end.
    """
    return Section(
        anchor=anchor,
        title=title,
        says=says,
        command=command or command_of(report, ""),
        hardware=hardware or hardware_of(report),
        versions=versions or versions_of(report),
        date=date_of(report, path),
        charts=tuple(charts),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def number(value: float, digits: int = 2) -> str:
    """Return a number with thousands apart."""
    return f"{value:,.{digits}f}"
