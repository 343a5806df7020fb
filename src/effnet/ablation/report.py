"""What an ablation came to: mean and spread of every cell beside the paper's numbers."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from matplotlib.ticker import EngFormatter

from effnet.ablation.runner import Study, Trial, command
from effnet.ablation.table import Cell, Published
from effnet.runs import threads_each


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Mean and sample standard deviation over the seeds."""

    values: tuple[float, ...]
    """One a seed; not empty."""

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for a single seed."""
        return stdev(self.values) if len(self.values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return mean, spread and the single values."""
        return {"mean": self.mean, "std": self.std, "values": list(self.values)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A cell and what its runs came to."""

    cell: Cell
    trials: tuple[Trial, ...]
    """One a seed, in order."""
    settings: tuple[str, ...]
    """All that it changes about the recipe."""

    @property
    def done(self) -> list[Trial]:
        """Trials that are finished."""
        return [trial for trial in self.trials if trial.result]

    @property
    def top1(self) -> Measured | None:
        """Validation top-1 at the last step, as a fraction; None: no trial is finished."""
        return self._measured(lambda result: result["val_top1"])

    @property
    def step_seconds(self) -> Measured | None:
        """Seconds in training steps."""
        return self._measured(lambda result: result["step_seconds"])

    @property
    def images_per_second(self) -> Measured | None:
        """Images trained on a second, in training steps."""
        return self._measured(lambda result: result["images"] / max(result["step_seconds"], 1e-9))

    @property
    def macs(self) -> int | None:
        """Multiply-adds of the forward passes of a whole run; the mean, where sizes are drawn by the seed."""
        macs = self._measured(lambda result: result["macs"])
        return None if macs is None else round(macs.mean)

    @property
    def macs_an_image(self) -> float | None:
        """Multiply-adds of the forward pass of one image, in the mean over a run."""
        macs = self._measured(lambda result: result["macs"] / max(result["images"], 1))
        return None if macs is None else macs.mean

    def _measured(self, value: Callable[[dict[str, Any]], float]) -> Measured | None:
        values = tuple(float(value(trial.result)) for trial in self.trials if trial.result)
        return Measured(values=values) if values else None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as ``table.json`` has it."""
        measured = {name: getattr(self, name) for name in ("top1", "step_seconds", "images_per_second")}
        return {
            "name": self.cell.name,
            "label": self.cell.label,
            "settings": list(self.settings),
            "paper": self.cell.paper.to_dict() if self.cell.paper else None,
            **{name: value and value.to_dict() for name, value in measured.items()},
            "macs": self.macs,
            "macs_an_image": self.macs_an_image,
            "runs": [
                {"seed": trial.seed, "run": str(trial.run), "failure": trial.failure or None}
                | {"result": trial.result}
                for trial in self.trials
            ],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The whole table."""

    study: Study
    rows: tuple[Row, ...]
    environment: dict[str, Any]
    """Where it was measured, see `effnet.training.journal.environment`."""

    @property
    def failures(self) -> list[Trial]:
        """Trials that were tried and have no result."""
        return [trial for row in self.rows for trial in row.trials if trial.failure]

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known, as ``table.json`` has it."""
        study = self.study
        return {
            "ablation": study.ablation.name,
            "title": study.ablation.title,
            "source": study.ablation.source,
            "remark": study.ablation.remark,
            "full": study.full,
            "data": study.data,
            "recipe": study.form.recipe,
            "seeds": study.seeds,
            "jobs": study.jobs,
            "threads": threads_each(study.jobs),
            "environment": self.environment,
            "rows": [row.to_dict() for row in self.rows],
        }

    def columns(self) -> tuple[str, ...]:
        """Return the headings of `cells`."""
        first = self.rows[0].cell.label
        ours = ("", "top-1", "seeds", "seconds", "images/s", "multiply-adds/image", f"x {first}")
        return (*ours, *(f"paper: {heading}" for heading, _ in self._paper_columns()))

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table as text, a row for each cell."""
        return [self._cells(row) for row in self.rows]

    def _cells(self, row: Row) -> tuple[str, ...]:
        base = self.rows[0].macs
        ours = (
            row.cell.label,
            percent(row.top1.mean, row.top1.std) if row.top1 else "",
            str(len(row.done)),
            spread(row.step_seconds),
            spread(row.images_per_second),
            EngFormatter(places=1)(row.macs_an_image) if row.macs_an_image else "",
            f"{row.macs / base:.2f}" if row.macs and base else "",
        )
        return (*ours, *(text(row.cell.paper) if row.cell.paper else "" for _, text in self._paper_columns()))

    def _paper_columns(self) -> list[tuple[str, Callable[[Published], str]]]:
        """Return the heading and the text of all columns for which the paper has a number in some row."""
        papers = [row.cell.paper for row in self.rows if row.cell.paper]
        digits = max(map(_digits, papers), default=1)
        columns: dict[str, tuple[str, Callable[[Published], str]]] = {
            "top1": ("top-1", lambda paper: percent(paper.top1, paper.top1_std, digits=digits)),
            "train_hours": ("hours", lambda paper: f"{paper.train_hours:g}" if paper.train_hours else ""),
            "macs": ("multiply-adds", lambda paper: f"{paper.macs / 1e9:g} G" if paper.macs else ""),
        }
        return [
            column
            for name, column in columns.items()
            if any(getattr(paper, name) is not None for paper in papers)
        ]

    def to_markdown(self) -> str:
        """Return the table with all that is needed to read it and to repeat it."""
        study, environment = self.study, self.environment
        scale = "the paper's scale" if study.full else "the small scale"
        lines = [
            f"# {study.ablation.title}",
            "",
            f"{study.ablation.source}, at {scale}, on `{study.data}`. {study.ablation.question}",
            "",
            *_markdown_table(self.columns(), self.cells()),
            "",
            "Top-1 is of the moving average at the last step; ± is the sample standard deviation over the "
            "seeds. Seconds and images/s are in training steps, waiting for images included, with "
            f"{_counted(study.jobs, 'run')} at a time of {_counted(threads_each(study.jobs), 'thread')} "
            "each. "
            "Multiply-adds are of the forward pass, in the mean over the run; the factor is that of a whole "
            f"run. {study.ablation.remark}",
            "",
            "Every seed:",
            "",
            *(f"- {row.cell.label}: {', '.join(map(_of_seed, row.trials))}" for row in self.rows),
            "",
            f"Hardware: {environment.get('cpu_model')}, "
            f"{', '.join(environment.get('devices') or ['no GPU'])}; "
            f"torch {environment.get('torch')}, commit {environment.get('git_commit')}.",
            "",
            "```",
            *(f"effnet {shlex.join(command(study, row.trials[0]))}" for row in self.rows),
            "```",
            "",
        ]
        return "\n".join(lines)


def build_report(study: Study, trials: Sequence[Trial], environment: dict[str, Any]) -> Report:
    """Gather the trials of each cell.

    Args:
        study: What was run.
        trials: Of all its cells.
        environment: Where it was run.
    """
    rows = tuple(
        Row(
            cell=cell,
            trials=tuple(trial for trial in trials if trial.cell.name == cell.name),
            settings=study.settings(cell),
        )
        for cell in study.cells
    )
    return Report(study=study, rows=rows, environment=environment)


def percent(mean: float, std: float | None, *, digits: int = 2) -> str:
    """Return a fraction and its spread for people, such as ``84.30 ± 0.14 %``."""
    text = f"{100 * mean:.{digits}f}"
    return f"{text} %" if std is None else f"{text} ± {100 * std:.2f} %"


def _digits(paper: Published) -> int:
    """Return with how many decimals the paper prints its accuracy."""
    return 1 if math.isclose(1000 * paper.top1, round(1000 * paper.top1)) else 2


def spread(measured: Measured | None) -> str:
    """Return a mean and its spread for people, with a decimal where it is small; empty for nothing."""
    if measured is None:
        return ""
    digits = 0 if measured.mean >= 100 else 1
    text = f"{measured.mean:.{digits}f}"
    return text if measured.std is None else f"{text} ± {measured.std:.{digits}f}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _of_seed(trial: Trial) -> str:
    if trial.result:
        return f"{trial.result['val_top1']:.2%}"
    return f"failed ({trial.failure})" if trial.failure else "not run"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rules = ["---", *["---:"] * (len(columns) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (columns, rules, *rows)]
