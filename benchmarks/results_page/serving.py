"""Predicting, serving and exported files, from `predict_speed.py`, `serve_load.py` and `export_parity.py`."""

from __future__ import annotations

import statistics
from pathlib import Path

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
    versions_of,
)

LOADS = (("serve-load.json", "the network"), ("serve-load-onnx.json", "its ONNX file"))


def sections(folder: Path) -> list[Section]:
    """Return what has been measured of them."""
    return [*_predicting(folder), *_serving(folder), *_exports(folder)]


def _predicting(folder: Path) -> list[Section]:
    file = "predict-flowers.json"
    report = read(folder, file)
    if report is None:
        return []
    charts: list[Chart] = []
    rates = report["images_per_second"]
    rows = [
        Bar(
            name="effnet predict" if name == "predict" else name,
            value=statistics.median(values),
            low=min(values),
            high=max(values),
            series=OURS if name == "predict" else RIVAL,
        )
        for name, values in rates.items()
    ]
    bars(rows, title="1,500 flowers, V2-B0, 224 px", unit="images a second", into=charts, digits=0)
    ratios = report["predict_to"]
    lines = tuple(
        (
            row.name,
            number(row.value, 1),
            f"{number(row.low, 1)} to {number(row.high, 1)}",
            _spread(ratios[name]),
        )
        for row, name in zip(rows, rates, strict=True)
    )
    return [
        section_of(
            report,
            folder / file,
            anchor="predict",
            title="Predicting from files",
            says=(
                "The whole of `effnet predict` (list, read, decode, resize, compute, write a CSV "
                "file) beside bare "
                "forward passes over the same images as tensors in memory, in turns."
            ),
            command=command_of(report, "python benchmarks/predict_speed.py"),
            charts=charts,
            tables=(Table(head=("", "images/s", "spread", "predict relative to it"), rows=lines),),
        )
    ]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _serving(folder: Path) -> list[Section]:
    charts: list[Chart] = []
    lines = []
    reports = [(file, name, report) for file, name in LOADS if (report := read(folder, file))]
    for _, name, report in reports:
        rows = []
        for summary in report["summary"]:
            rates = [
                round_["requests"] / round_["seconds"]
                for round_ in report["rounds"]
                if (round_["max_batch"], round_["clients"]) == (summary["max_batch"], summary["clients"])
            ]
            batches = f"batches to {summary['max_batch']}" if summary["max_batch"] > 1 else "batches of 1"
            title = f"{summary['clients']} clients, {batches}".replace("1 clients", "1 client")
            rate = summary["requests_per_s"]
            series = OURS if summary["max_batch"] > 1 else RIVAL
            rows.append(
                Bar(name=title, value=rate, low=min([*rates, rate]), high=max([*rates, rate]), series=series)
            )
            lines.append(
                (
                    name,
                    title,
                    number(rate, 1),
                    number(summary["p50_ms"], 0),
                    number(summary["p99_ms"], 0),
                    str(summary["errors"]),
                )
            )
        bars(rows, title=f"V2-B0, 224 px: {name}", unit="requests a second", into=charts, digits=0)
    if not reports:
        return []
    file, _, report = reports[0]
    return [
        section_of(
            report,
            folder / file,
            anchor="serve",
            title="Serving",
            says="`effnet serve` asked over HTTP for one photo a request, the client on the same processors.",
            command=command_of(report, "python benchmarks/serve_load.py RUN PHOTOS"),
            charts=charts,
            tables=(Table(head=("", "", "requests/s", "p50, ms", "p99, ms", "errors"), rows=tuple(lines)),),
        )
    ]


def _exports(folder: Path) -> list[Section]:
    file = "export.json"
    report = read(folder, file)
    if report is None:
        return []
    charts: list[Chart] = []
    lines = []
    for precision in ("fp32", "int8"):
        for name, files in report[precision].items():
            rows = []
            for item in files:
                times = item["times_as_fast"]
                latency = item["latency"]
                low, high = (times * latency["median_ms"] / latency[key] for key in ("p90_ms", "p10_ms"))
                rows.append(Bar(name=item["form"], value=times, low=low, high=high, series=OURS))
                lines.append(
                    (
                        name,
                        precision,
                        item["form"],
                        f"{item['max_relative_difference']:.1e}",
                        f"{item['top1_agreement']:.1%}",
                        number(item["size_bytes"] / 1e6, 1),
                        number(latency["median_ms"], 1),
                        number(times),
                    )
                )
            network, size, *rest = name.split()
            kept = f", {rest[0]} kept" if rest and rest[0] != "none" else ""
            title = f"{network.upper()}, {size} px, {precision}{kept}"
            bars(rows, title=title, unit="times as fast", line=True, into=charts)
    versions = {}
    for files in report["fp32"].values():
        for item in files:
            versions |= item["packages"]
    return [
        section_of(
            report,
            folder / file,
            anchor="export",
            title="Exported files",
            says=(
                "A batch of one through the runtime of each file, in multiples of PyTorch's speed, "
                "in turns with it; "
                "the lines are the 10 % fastest and slowest calls."
            ),
            command=command_of(report, "python benchmarks/export_parity.py"),
            versions=versions_of({"versions": versions}),
            charts=charts,
            tables=(
                Table(
                    head=("", "", "form", "difference", "same answer", "MB", "ms", "times as fast"),
                    rows=tuple(lines),
                ),
            ),
        )
    ]
