"""The numbers behind the picture of a family, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from effnet.reporting.family import Family
from effnet.reporting.latency import Latency
from effnet.reporting.published import LATENCY, TRAINING
from effnet.reporting.wording import DASH

RUN_COLUMNS = (
    "run",
    "network",
    "data",
    "begun",
    "top-1",
    "params",
    "macs",
    "size",
    "latency here",
    "training",
)
PUBLISHED_COLUMNS = (
    "network",
    "top-1",
    "params",
    "macs",
    "latency, published",
    "training, published",
    "latency here",
    "source",
)


def run_rows(family: Family) -> list[tuple[str, ...]]:
    """Return a line for each of one's own runs, under `RUN_COLUMNS`."""
    return [
        (
            run.name,
            run.network,
            run.data,
            "from weights" if run.is_fine_tuned else "from scratch",
            f"{run.top1:.2f} %",
            _number(run.params, " M"),
            _number(run.macs, " G"),
            f"{run.image_size} px",
            _milliseconds(run.latency),
            f"{run.minutes:.1f} min",
        )
        for run in family.runs
    ]


def published_rows(family: Family) -> list[tuple[str, ...]]:
    """Return a line for each published network, under `PUBLISHED_COLUMNS`."""
    return [
        (
            point.name,
            f"{point.top1:.1f} %",
            _number(point.params, " M"),
            _number(point.macs, " G"),
            _number(point.latency, " ms"),
            _number(point.training, " h"),
            _milliseconds(family.latencies.get(point.network)),
            point.source,
        )
        for point in family.published
    ]


def markdown(family: Family) -> str:
    """Return both tables with what their columns mean."""
    lines = [
        "# Accuracy and cost",
        "",
        f"Published latencies are {LATENCY}, published training times {TRAINING}; all published accuracies "
        f"are of ImageNet. The {family.latency_label}; eager, float32, batch norm folded; median, and where "
        "half of the passes lie.",
    ]
    if family.runs:
        lines += ["", *_table(RUN_COLUMNS, run_rows(family))]
    lines += ["", *_table(PUBLISHED_COLUMNS, published_rows(family)), ""]
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [_line(columns), _line(["---"] * len(columns)), *map(_line, cells)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, unit: str) -> str:
    return DASH if value is None else f"{value:.3g}{unit}"


def _milliseconds(latency: Latency | None) -> str:
    if latency is None:
        return DASH
    return f"{latency.median_ms:.1f} ms ({latency.low_ms:.1f} to {latency.high_ms:.1f})"
