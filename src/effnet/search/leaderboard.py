"""The files of a report: leaderboard as JSON and Markdown, the best network, and the pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from effnet.arch.io import spec_to_json
from effnet.files import whole_file
from effnet.search.objective import Goal
from effnet.search.plots import plot_pareto, plot_shared
from effnet.search.points import Value
from effnet.search.report import Entry, Report
from effnet.search.shared import Share, most_common

_SHOWN = 20
HEADINGS: dict[Goal, str] = {
    "accuracy": "top-1",
    "step_ms": "step, ms",
    "latency_ms": "latency, ms",
    "memory_mb": "memory, MiB",
    "params": "parameters",
    "macs": "multiply-adds",
}
"""Of the measures, in tables."""
_FORMATS: dict[Goal, Callable[[float], str]] = {
    "accuracy": "{:.2%}".format,
    "step_ms": "{:.4g}".format,
    "latency_ms": "{:.4g}".format,
    "memory_mb": "{:,.0f}".format,
    "params": "{:,}".format,
    "macs": lambda macs: f"{macs / 1e6:,.1f} M",
}


def write_report(report: Report, folder: Path) -> dict[str, Path]:
    """Write all that is known of a study; files of an earlier report are replaced.

    Args:
        report: Complete or not: without any trained candidate there are only the two leaderboards.
        folder: Made if it is not there.

    Returns:
        The files by what they are: ``leaderboard``, ``json``, ``best``, ``pareto``, ``shared``.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"leaderboard.json": json.dumps(report.to_dict(), indent=1) + "\n"}
    texts["leaderboard.md"] = to_markdown(report)
    if report.winner:
        texts["best.json"] = spec_to_json(report.winner.spec)
    for name, text in texts.items():
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    written = {"leaderboard": folder / "leaderboard.md", "json": folder / "leaderboard.json"}
    if report.winner:
        written |= {"best": folder / "best.json", "pareto": folder / "pareto.png"}
        plot_pareto(report, written["pareto"])
        if report.shared:
            written["shared"] = folder / "shared.png"
            plot_shared(report, written["shared"])
    return written


def columns(report: Report) -> tuple[str, ...]:
    """Return the headings of `cells`."""
    reward = () if report.objective.is_front else ("reward",)
    return ("rank", "trial", "network", *reward, *(HEADINGS[goal] for goal in _goals(report)), "")


def cells(report: Report, most: int | None = None) -> list[tuple[str, ...]]:
    """Return the leaderboard as text: the first ``most``, and the backbone wherever it stands.

    Args:
        report: Of the study.
        most: Rows, the backbone not counted; None: all.
    """
    shown = [entry for entry in report.entries if most is None or entry.rank <= most or entry.is_backbone]
    return [_cells(report, entry) for entry in shown]


def to_markdown(report: Report) -> str:
    """Return the leaderboard with all that is needed to read it."""
    space = report.space
    lines = [
        f"# Search: {space.name} around {space.backbone.name}",
        "",
        f"Study `{report.study}`, objective `{report.objective}`; {space.count():,} networks in the space. "
        f"{_states(report)}",
        "",
    ]
    if report.winner is None:
        lines += ["No candidate has been trained to the end yet.", ""]
    else:
        aligned = ["---:", "---:", "---", *["---:"] * (len(columns(report)) - 4), "---"]
        rows = [columns(report), aligned, *cells(report, _SHOWN)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += ["", *_remarks(report), *_shared_table(report)]
    if report.reasons:
        lines += ["## Not trained to the end", ""]
        lines += [
            f"- {number} {state}{', such as' if number > 1 else ''}: {reason}"
            for state, reason, number in report.reasons
        ]
        lines += [""]
    return "\n".join(lines)


def _goals(report: Report) -> tuple[Goal, ...]:
    """Return the measures to print: those of the objective first, then what else is known of all."""
    needs = report.objective.needs
    known = [
        goal
        for goal in HEADINGS
        if goal not in needs
        and report.entries
        and all(getattr(entry.measures, goal) is not None for entry in report.entries)
    ]
    return (*needs, *known)


def _cells(report: Report, entry: Entry) -> tuple[str, ...]:
    reward = () if entry.reward is None else (f"{entry.reward:.4f}",)
    values = [_FORMATS[goal](getattr(entry.measures, goal)) for goal in _goals(report)]
    return (
        str(entry.rank),
        str(entry.trial.number),
        entry.spec.name,
        *reward,
        *values,
        _marks(report, entry),
    )


def _marks(report: Report, entry: Entry) -> str:
    marks = {
        "best": entry is report.winner,
        "front": entry.on_front,
        "backbone": entry.is_backbone,
    }
    return ", ".join(mark for mark, holds in marks.items() if holds)


def _states(report: Report) -> str:
    states = report.states
    ended = {"done": "complete", "stopped": "stopped early", "rejected": "rejected before training"}
    parts = [f"{number} {ended.get(state, state)}" for state, number in states.items()]
    hours = sum(trial.seconds for trial in report.trials) / 3600
    return f"{len(report.trials)} candidates: {', '.join(parts) or 'none yet'}; {hours:.2f} hours of trials."


def _remarks(report: Report) -> list[str]:
    needs = ", ".join(HEADINGS[goal].partition(",")[0] for goal in report.objective.compared)
    text = (
        "Top-1 is on images held out of the training split. Front: no other one is better in one of "
        f"{needs} and worse in none."
    )
    if report.objective.is_front:
        text += " `best.json` is the network of the front nearest to the best of every goal."
    if (volume := report.volume_beyond_backbone) is not None:
        text += f" The front covers {volume:.4g} (a volume of logarithms) beyond the backbone."
    if report.backbone is None:
        text += " The backbone itself was not trained to the end, so that nothing is compared with it."
    return [
        text,
        "",
        "```",
        "effnet models best.json",
        "effnet train DATA --model best.json",
        "```",
        "",
        "![candidates](pareto.png)",
        "",
    ]


def _shared_table(report: Report) -> list[str]:
    """Return the most common value of each stage among the best, where the space has a choice."""
    leading = most_common(report.shared)
    if not leading:
        return []
    fields = list(dict.fromkeys(share.field for share in report.shared))
    by_place = {(share.stage, share.field): share for share in leading}
    stages = sorted({share.stage for share in leading})
    lines = [
        "## What the best share",
        "",
        f"The most common value among the best {len(report.best)}, how many of them have it, and in brackets "
        "how many of all that were trained.",
        "",
        f"| stage | {' | '.join(fields)} |",
        f"| ---: | {' | '.join('---' for _ in fields)} |",
    ]
    for stage in stages:
        texts = [_common(by_place.get((stage, field))) for field in fields]
        lines.append(f"| {stage} | {' | '.join(texts)} |")
    return [*lines, "", "![what the best share](shared.png)", ""]


def _common(share: Share | None) -> str:
    return "" if share is None else f"{_plain(share.value)}: {share.best:.0%} ({share.tried:.0%})"


def _plain(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
