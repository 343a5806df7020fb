"""Training steps and answers on a GPU, from `gpu_speed.py`."""

from __future__ import annotations

import statistics
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
    hardware_of,
    number,
    read,
    section_of,
)

FILE = "gpu-speed.json"
COMMAND = "make bench-gpu"
GOALS = {"train v2-s 300px": 4000.0}
"""Images a second, by the beginning of a case's key."""
Case = Mapping[str, Any]


def sections(folder: Path) -> list[Section]:
    """Return training steps, then answers, as far as they have been measured."""
    report = read(folder, FILE)
    if report is None:
        return []
    found = []
    for kind, title in (("train", "A training step on a GPU"), ("infer", "Answers on a GPU")):
        cases = [case for case in report["cases"].values() if case["kind"] == kind]
        if not cases:
            continue
        charts: list[Chart] = []
        for case in cases:
            _beside(case, charts)
        roofs = report["roofs"]
        found.append(
            section_of(
                report,
                folder / FILE,
                anchor=f"gpu-{kind}",
                title=title,
                says=(
                    f"Images a second in {report['precision']}, medians of rounds in which all take turns, "
                    "with the smallest and the largest. Copying reaches "
                    f"{roofs['bytes_per_second'] / 1e12:.2f} TB/s here, a matrix product "
                    f"{roofs['flops_per_second'] / 1e12:.1f} TFLOP/s."
                ),
                command=COMMAND,
                hardware=f"{roofs.get('name', report['device'])}; {hardware_of(report)}",
                charts=charts,
                tables=(_table(cases),),
                notes=(f"As it was run: {command_of(report, COMMAND)}", *_notes(report, cases)),
            )
        )
    return found


def name_of(case: Case) -> str:
    """Return a case as people write it."""
    return f"{case['network'].upper()}, {case['size']} px, batch {case['batch']}"


def _beside(case: Case, into: list[Chart]) -> None:
    rates = {name: [case["batch"] / value for value in values] for name, values in case["seconds"].items()}
    rows = [
        Bar(
            name=name,
            value=case["batch"] / statistics.median(case["seconds"][name]),
            low=min(values),
            high=max(values),
            series=OURS if name.startswith("effnet") else RIVAL,
        )
        for name, values in rates.items()
    ]
    goal = next((value for start, value in GOALS.items() if case["key"].startswith(start)), None)
    bars(rows, title=name_of(case), unit="images a second", goal=goal, digits=0, into=into)
    peaks = {name: case["peak_bytes"][name] / 1e9 for name in rates if case["peak_bytes"][name]}
    if peaks and case["kind"] == "train":
        rows = [
            Bar(
                name=name,
                value=peak,
                low=peak,
                high=peak,
                series=OURS if name.startswith("effnet") else RIVAL,
            )
            for name, peak in peaks.items()
        ]
        bars(rows, title=f"{name_of(case)}: peak memory", unit="GB", into=into)


def _table(cases: list[Case]) -> Table:
    lines = []
    for case in cases:
        roof = case["roofline"]
        for name, seconds in case["seconds"].items():
            shares = case["shares"].get(name, {}).get("shares", {})
            peak = case["peak_bytes"][name]
            lines.append(
                (
                    name_of(case),
                    name,
                    number(case["batch"] / statistics.median(seconds), 0),
                    number(statistics.median(seconds) * 1e3),
                    number(peak / 1e9) if peak else "-",
                    f"{roof['share_of_bandwidth'][name]:.0%}",
                    f"{roof['share_of_arithmetic'][name]:.0%}",
                    ", ".join(f"{kind} {share:.0%}" for kind, share in list(shares.items())[:5]) or "-",
                )
            )
    head = (
        "",
        "",
        "images/s",
        "ms",
        "GB",
        "of the bandwidth roof",
        "of the arithmetic",
        "where the time goes",
    )
    return Table(head=head, rows=tuple(lines))


def _notes(report: Mapping[str, Any], cases: list[Case]) -> list[str]:
    said = {name: way["includes"] for case in cases for name, way in case["ways"].items()}
    notes = [f"{name}: {includes}." for name, includes in said.items()]
    missing = {f"{name}: {reason}." for case in cases for name, reason in case["left_out"].items()}
    missing |= {f"{name}: {reason}." for name, reason in report["left_out"].items()}
    return [*notes, "Left out: " + " ".join(sorted(missing))] if missing else notes
