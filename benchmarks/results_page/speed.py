"""Training steps and answers on a processor, from `cpu_speed.py`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from side_by_side.table import Ratio, fastest, ratio

from effnet.files import whole_file
from effnet.reporting.chart import Chart
from results_page.section import (
    OURS,
    OURS_TOO,
    RIVAL,
    Bar,
    Section,
    Table,
    bars,
    number,
    read,
    section_of,
    versions_of,
)

FILE = "cpu-speed.json"
PICTURE = "cpu-speed.png"
GOAL = 1.4
"""Of a training step beside timm's default."""
_SHOWN = (
    ("train", "Training step", ("timm", "timm best", "torchvision best", "Keras")),
    ("infer", "Answers", ("timm", "timm, OpenVINO", "timm, ONNX Runtime", "torchvision", "Keras")),
)
"""Whom the picture has."""
RUNTIMES = ("timm, ONNX Runtime", "timm, OpenVINO")
Case = Mapping[str, Any]


def sections(folder: Path) -> list[Section]:
    """Return training steps, then answers, as far as they have been measured."""
    report = read(folder, FILE)
    if report is None:
        return []
    found = []
    for kind, title, says, make in (
        ("train", "A training step on a processor", _STEPS, _train_summary),
        ("infer", "Answers on a processor", _ANSWERS, _infer_summary),
    ):
        cases = [case for case in report["cases"].values() if case["kind"] == kind]
        if not cases:
            continue
        charts: list[Chart] = []
        make(cases, charts)
        for case in cases:
            _beside(case, charts)
        found.append(
            section_of(
                report,
                folder / FILE,
                anchor=f"cpu-{kind}",
                title=title,
                says=says.format(rounds=report["rounds"]),
                command="make bench-cpu",
                hardware=_hardware(report, cases),
                versions=versions_of(report) + (f", oneDNN {report['onednn']}" if report["onednn"] else ""),
                charts=charts,
                tables=(_table(cases),),
                notes=tuple(_notes(cases)),
            )
        )
    return found


_STEPS = (
    "How many times as long others take as effnet by default: normalising a uint8 batch, forward and "
    "backward pass with dropout and drop-path, loss, optimizer, and the moving average of each library that "
    "has one. All start from the same weights, and their losses agree before they are timed. Medians of "
    "{rounds} rounds in which all take turns; the lines are the smallest and the largest ratio of a round."
)
_ANSWERS = (
    "How many times as long others take as effnet by default; the same weights, and logits "
    "that agree. "
    "Medians of {rounds} rounds in which all take turns, with the smallest and the largest ratio of a round."
)


def _train_summary(cases: list[Case], into: list[Chart]) -> None:
    default = [_bar(name_of(case), ratio(case, "timm")) for case in cases if "timm" in case["seconds"]]
    if default:
        bars(
            default,
            title="timm's default beside effnet's",
            unit="times as long as effnet",
            line=True,
            goal=GOAL,
            into=into,
        )
    best = [_bar(name_of(case), found) for case in cases if (found := best_rival(case)[1])]
    if best:
        bars(
            best,
            title="The fastest rival in single precision",
            unit="times as long as effnet",
            line=True,
            into=into,
        )


def _infer_summary(cases: list[Case], into: list[Chart]) -> None:
    rows = []
    for case in cases:
        rival = runtime(case)
        if rival:
            rows.append(_bar(name_of(case), ratio(case, rival)))
    if rows:
        title = "The faster of OpenVINO and ONNX Runtime on timm's export"
        bars(rows, title=title, unit="times as long as effnet", line=True, into=into)


def best_rival(case: Case) -> tuple[str, Ratio | None]:
    """Return who else is the fastest in single precision, compilation left aside, and the ratio."""
    names = [
        name
        for name, about in case["ways"].items()
        if about["precision"] == "fp32" and not name.startswith("effnet") and "compiled" not in name
    ]
    name = fastest(case, names)
    return (name, ratio(case, name)) if name else ("", None)


def runtime(case: Case) -> str | None:
    """Return the faster runtime on timm's export."""
    return fastest(case, [name for name in RUNTIMES if name in case["seconds"]])


def name_of(case: Case) -> str:
    """Return a case as people write it."""
    optimizer = {"rmsprop_tf": "", "adamw": ", AdamW", "": f", batch {case['batch']}"}[case["optimizer"]]
    return f"{case['network'].upper()}, {case['size']} px{optimizer}"


def _bar(name: str, found: Ratio, series: int = RIVAL) -> Bar:
    return Bar(name=name, value=found.median, low=found.low, high=found.high, series=series)


def _beside(case: Case, into: list[Chart]) -> None:
    rows = []
    for name in case["seconds"]:
        series = OURS if name == "effnet" else OURS_TOO if name.startswith("effnet") else RIVAL
        rows.append(_bar(name, ratio(case, name), series))
    bars(rows, title=f"{name_of(case)}: everybody", unit="times as long as effnet", line=True, into=into)


def _table(cases: list[Case]) -> Table:
    names = list(dict.fromkeys(name for case in cases for name in case["seconds"] if name != "effnet"))
    rows = []
    for case in cases:
        own = statistics.median(case["seconds"]["effnet"])
        others = [str(ratio(case, name)) if name in case["seconds"] else "-" for name in names]
        rows.append((name_of(case), number(own * 1e3, 1), number(case["batch"] / own, 1), *others))
    return Table(head=("times as long", "effnet, ms", "images/s", *names), rows=tuple(rows))


def _hardware(report: Mapping[str, Any], cases: list[Case]) -> str:
    about = report["processor"]
    loads = [state["load"] for case in cases for state in case["states"]]
    clocks = [mhz for case in cases for state in case["states"] for mhz in state["mhz"]]
    limits = ", ".join(f"{name} {value}" for name, value in about["clocks_and_power"].items())
    parts = [
        f"{about['model']}, {about['cores']} cores{', virtual machine' if about['is_virtual'] else ''}",
        " ".join(about["flags"]),
        f"{report['threads']} thread{'s' * (report['threads'] > 1)}, by the {report['clock']}'s clock",
        f"load {min(loads):.1f} to {max(loads):.1f}",
        f"{min(clocks):.0f} to {max(clocks):.0f} MHz" if clocks else "",
        limits,
        about["note"],
    ]
    return "; ".join(part for part in parts if part)


def _notes(cases: list[Case]) -> Iterable[str]:
    said = {name: about["includes"] for case in cases for name, about in case["ways"].items()}
    yield from (f"{name}: {includes}." for name, includes in said.items())
    missing = {f"{name}: {reason}." for case in cases for name, reason in case["left_out"].items()}
    if missing:
        yield "Left out: " + " ".join(sorted(missing))
    worst = max(check["difference"] for case in cases for check in _single(case))
    yield f"Largest relative difference to effnet's losses or logits, in single precision: {worst:.1e}."


def _single(case: Case) -> list[Mapping[str, Any]]:
    return [check for name, check in case["checks"].items() if case["ways"][name]["precision"] == "fp32"]


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw the main rivals beside effnet's default, for where the page is not shown."""
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    for axes, (kind, title, names) in zip(figure.subplots(1, 2), _SHOWN, strict=True):
        cases = [case for case in report["cases"].values() if case["kind"] == kind]
        cases = [case for case in cases if case["optimizer"] != "adamw"]
        for place, name in enumerate(names):
            rows = [index for index, case in enumerate(cases) if name in case["seconds"]]
            found = [ratio(cases[index], name) for index in rows]
            axes.barh(
                [index + (place + 0.5) / len(names) * 0.8 - 0.4 for index in rows],
                [item.median for item in found],
                0.8 / len(names),
                xerr=[
                    [item.median - item.low for item in found],
                    [item.high - item.median for item in found],
                ],
                color=f"C{place}",
                alpha=0.75,
                error_kw={"linewidth": 0.8},
                label=name,
            )
        axes.axvline(1.0, color="black", linewidth=1)
        if kind == "train":
            axes.axvline(GOAL, color="tab:red", linestyle="dashed", linewidth=1)
        axes.set_yticks(range(len(cases)), [name_of(case) for case in cases])
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("times as long as effnet by default")
        axes.set_title(f"{title}\n\n\n", fontsize=11)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
