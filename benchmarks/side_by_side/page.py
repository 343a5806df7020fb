"""A table and a picture of what was measured."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


class Ratio(NamedTuple):
    """How many times as long another way takes as ours, round by round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(case: dict[str, Any], name: str, own: str) -> Ratio:
    """Compare a way with one of ours."""
    seconds = case["seconds"]
    values = [other / mine for other, mine in zip(seconds[name], seconds[own], strict=True)]
    return Ratio(statistics.median(values), min(values), max(values))


def fastest(case: dict[str, Any], prefix: str) -> str:
    """Return the way of a library that takes the least time."""
    ways = {name: values for name, values in case["seconds"].items() if name.startswith(prefix)}
    return min(ways, key=lambda name: statistics.median(ways[name]))


def table(report: dict[str, Any]) -> str:
    """Return a Markdown table of all cases."""
    lines = [
        "| case | effnet's fastest | ms | images/s | timm's default takes | timm's fastest | it takes |",
        "|---|---|---:|---:|---:|---|---:|",
    ]
    for case in report["cases"].values():
        own, other = fastest(case, "effnet"), fastest(case, "timm")
        seconds = statistics.median(case["seconds"][own])
        lines.append(
            f"| {case['key']} | {own} | {seconds * 1e3:.1f} | {case['batch'] / seconds:.1f} | "
            f"{ratio(case, 'timm', own)} | {other} | {ratio(case, other, own)} |"
        )
    return "\n".join(lines)


def document(report: dict[str, Any], picture: str) -> str:
    """Return the whole page."""
    about, versions = report["environment"], report["versions"]
    threads = {item["threads"] for case in report["cases"].values() for item in case["about"].values()}
    loads = [load for case in report["cases"].values() for load in case["load"]]
    packages = ", ".join(f"{name} {value}" for name, value in versions.items() if value)
    every = [
        "| case | " + " | ".join(["way", "ms", "spread", "of effnet's"]) + " |",
        "|---|---|---:|---:|---:|",
    ]
    for case in report["cases"].values():
        for name, values in case["seconds"].items():
            every.append(
                f"| {case['key']} | {name} | {statistics.median(values) * 1e3:.1f} | "
                f"{min(values) * 1e3:.1f} to {max(values) * 1e3:.1f} | {ratio(case, name, 'effnet')} |"
            )
    return "\n".join(
        [
            "# Speed on a processor",
            "",
            f"{about['cpu_model']}, {about['cpu_count']} processors, {'/'.join(map(str, sorted(threads)))} "
            f"threads, load {min(loads):.1f} to {max(loads):.1f}; {packages}. Medians of {report['rounds']} "
            "rounds in which all ways take turns; ratios are taken within each round, with the smallest and "
            "the largest. Above 1, effnet is faster.",
            "",
            f"![Times relative to effnet's]({picture})",
            "",
            table(report),
            "",
            "Every way, as a multiple of what effnet takes by default:",
            "",
            *every,
            "",
        ]
    )


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw how many times as long every way takes as effnet's own fastest."""
    cases = list(report["cases"].values())
    names = list(dict.fromkeys(name for case in cases for name in case["seconds"]))
    names = [name for name in names if not name.startswith("effnet")]
    height = 0.8 / len(names)
    figure, axes = plt.subplots(figsize=(8, 0.5 + 0.55 * len(cases)), layout="constrained")
    for place, name in enumerate(names):
        rows = [index for index, case in enumerate(cases) if name in case["seconds"]]
        found = [ratio(cases[index], name, fastest(cases[index], "effnet")) for index in rows]
        middle = [item.median for item in found]
        spread = [
            [item.median - item.low for item in found],
            [item.high - item.median for item in found],
        ]
        axes.barh(
            [index + (place - len(names) / 2 + 0.5) * height for index in rows],
            middle,
            height,
            xerr=spread,
            label=name,
            error_kw={"linewidth": 0.7},
        )
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(range(len(cases)), [case["key"] for case in cases])
    axes.invert_yaxis()
    axes.set_xlabel("time of a step or call, as a multiple of effnet's fastest")
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_page(results: Path) -> str:
    """Write the page and the picture beside the results; return the table."""
    report = json.loads(results.read_text(encoding="utf-8"))
    draw(report, results.with_suffix(".png"))
    text = document(report, results.with_suffix(".png").name)
    results.with_suffix(".md").write_text(text, encoding="utf-8")
    return table(report)
