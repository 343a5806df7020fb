"""Searches, supernet, predicted steps and ablations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effnet.reporting.chart import Chart
from results_page.section import (
    OURS,
    OURS_TOO,
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

TABLES = (
    ("regret-accel-nasbench.json", "Accel-NASBench", "effnet search --table accel-nasbench.csv"),
    ("regret-nas-bench-macro.json", "NAS-Bench-Macro", "effnet search --table nas-bench-macro.json"),
)
PREDICTIONS = (
    ("step-time-small.json", "space small, 32 px"),
    ("step-time-imagenet.json", "Accel-NASBench, ImageNet"),
)


def sections(folder: Path) -> list[Section]:
    """Return what has been measured of them."""
    return [*_table13(folder), *_regret(folder), *_winner(folder), *_supernet(folder), *_prediction(folder)]


def _table13(folder: Path) -> list[Section]:
    path = folder / "table13-cifar10.json"
    report = read(folder, path.name)
    if report is None:
        return []
    charts: list[Chart] = []
    rows = [_around(row["label"], row["top1"], "std", 100, OURS) for row in report["rows"]]
    bars(rows, title="Top-1", unit="%, mean and standard deviation", into=charts, digits=1)
    rows = [_around(row["label"], row["step_seconds"], "std", 1, OURS_TOO) for row in report["rows"]]
    bars(
        rows, title="Seconds in training steps", unit="s, mean and standard deviation", into=charts, digits=0
    )
    least = report["rows"][0]["macs"]
    lines = tuple(
        (
            row["label"],
            f"{row['top1']['mean']:.2%} ± {row['top1']['std']:.2%}",
            number(row["macs"] / least),
            f"{row['paper']['top1']:.1%}" if row["paper"] else "-",
        )
        for row in report["rows"]
    )
    table = Table(head=("", "top-1", "multiply-adds, relative", "the paper, ImageNet"), rows=lines)
    return [
        section_of(
            report,
            path,
            anchor="table13",
            title="Table 13 on CIFAR-10: adaptive regularization",
            says=f"5,000 images of CIFAR-10, {report['seeds']} seeds, the same epochs for every cell.",
            charts=charts,
            tables=(table,),
        )
    ]


def _around(name: str, found: Mapping[str, Any], spread_key: str, factor: float, series: int) -> Bar:
    mean, spread = found["mean"] * factor, found[spread_key] * factor
    return Bar(name=name, value=mean, low=max(mean - spread, 0.0), high=mean + spread, series=series)


def _regret(folder: Path) -> list[Section]:
    found = []
    for file, name, command in TABLES:
        report = read(folder, file)
        if report is None:
            continue
        charts: list[Chart] = []
        for place, asks in enumerate(report["asks"]):
            rows = [
                _around(
                    strategy,
                    said["observed"][place],
                    "std",
                    100,
                    OURS if strategy == "thompson" else RIVAL,
                )
                for strategy, said in report["strategies"].items()
            ]
            bars(rows, title=f"After {asks:,} asks", unit="regret, %", into=charts)
        lines = tuple(
            (
                strategy,
                *(f"{item['mean']:.2%} ± {item['std']:.2%}" for item in said["observed"]),
                number(said["ask_ms"], 1),
            )
            for strategy, said in report["strategies"].items()
        )
        head = ("regret", *(f"{asks:,} asks" for asks in report["asks"]), "ms an ask")
        found.append(
            section_of(
                report,
                folder / file,
                command=command,
                anchor=file.removesuffix(".json"),
                title=f"Search strategies on {name}",
                says=(
                    "How far the true reward of the best observed network is below the best there "
                    "is: mean and "
                    f"standard deviation over {report['seeds']} seeds; less is better."
                ),
                charts=charts,
                tables=(Table(head=head, rows=lines),),
                notes=(report["environment"]["note"] + ".",) if "note" in report["environment"] else (),
            )
        )
    return found


def _winner(folder: Path) -> list[Section]:
    path = folder / "search-winner-cifar10.json"
    report = read(folder, path.name)
    if report is None:
        return []
    charts: list[Chart] = []
    items = report["networks"].items()
    series = {"winner": OURS}
    rows = [
        Bar(
            name=name,
            value=item["top1"]["mean"] * 100,
            low=min(item["top1"]["values"]) * 100,
            high=max(item["top1"]["values"]) * 100,
            series=series.get(name, RIVAL),
        )
        for name, item in items
    ]
    bars(rows, title="Top-1 from scratch", unit="%, mean, smallest and largest", into=charts, digits=1)
    rows = [
        Bar(
            name=name,
            value=item["step_ratio"],
            low=item["step_ratio"],
            high=item["step_ratio"],
            series=series.get(name, RIVAL),
        )
        for name, item in items
    ]
    bars(rows, title="A training step", unit="relative to the backbone", into=charts)
    lines = []
    for name, item in items:
        top1 = item["top1"]
        said = f"{top1['mean']:.2%} ± {top1['deviation']:.2%}, n = {len(top1['values'])}"
        lines.append((name, item["network"], said, number(item["step_ratio"], 3)))
    return [
        section_of(
            report,
            path,
            anchor="search",
            title="What a search on CIFAR-10 found",
            says="The winner beside a network of V2-B0's shape with an equal step, and beside the backbone.",
            charts=charts,
            tables=(Table(head=("", "network", "top-1", "step"), rows=tuple(lines)),),
            notes=(report["note"],),
        )
    ]


def _supernet(folder: Path) -> list[Section]:
    path = folder / "supernet-cifar10.json"
    report = read(folder, path.name)
    if report is None:
        return []
    names = {"supernet": "the supernet", "params": "parameters", "macs": "multiply-adds"}
    lines = tuple(
        (name, number(report[key]["tau"]), f"{report[key]['low']:.2f} to {report[key]['high']:.2f}")
        for key, name in names.items()
    )
    head = ("order by", "Kendall's tau", "95 % interval")
    return [
        section_of(
            report,
            path,
            anchor="supernet",
            title="Does a supernet's ranking hold?",
            says=f"{report['what']}, {len(report['networks'])} networks; {report['data']}.",
            tables=(Table(head=head, rows=lines),),
            notes=(report["note"],),
        )
    ]


def _prediction(folder: Path) -> list[Section]:
    reports = [(file, name, report) for file, name in PREDICTIONS if (report := read(folder, file))]
    if not reports:
        return []
    charts: list[Chart] = []
    lines = []
    for _, name, report in reports:
        error = report["error"]
        rows = [
            _around("predicted", error["median"], "spread", 100, OURS),
            _around("multiply-adds alone", error["median_of_macs"], "spread", 100, RIVAL),
        ]
        bars(rows, title=name, unit="median error, %", into=charts, digits=1)
        said = (error["median"], error["nine_of_ten"])
        told = [f"{item['mean']:.1%} ± {item['spread']:.1%}" for item in said]
        lines.append(
            (name, str(error["fitted"]), f"{error['held_out']:,}", *told, f"{error['rank']['mean']:.3f}")
        )
    file, _, report = reports[0]
    head = ("", "fitted", "held out", "median error", "nine of ten within", "rank correlation")
    return [
        section_of(
            report,
            folder / file,
            command="\n".join(command_of(report, "") for _, _, report in reports),
            anchor="step-time",
            title="Training steps, predicted",
            says="Relative error of the step of networks that took no part in the fit, over 20 splits.",
            charts=charts,
            tables=(Table(head=head, rows=tuple(lines)),),
        )
    ]
