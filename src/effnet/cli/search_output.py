"""What ``search`` prints, and the files of its report."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from effnet.cli.output import print_json, print_table

if TYPE_CHECKING:
    from effnet.search.schedules.study import ScheduleStudy
    from effnet.search.study import Progress, Study

_SHOWN = 20
"""Rows of the leaderboard on a terminal."""


def beginning(study: Study | ScheduleStudy, wanted: int) -> str:
    """Return what a session begins with."""
    from effnet.search.study import Study

    there = study.ledger.trials()
    ended = sum(trial.has_ended for trial in there)
    begun = f"{ended} of them ended before" if there else "none begun yet"
    if isinstance(study, Study):
        return (
            f"searching {study.space.count():.3g} networks of the space {study.space.name} around "
            f"{study.reference.name} for {study.settings.objective}: {wanted} trials, {begun}; the "
            f"reference's step takes {study.settings.reference_ms:.3g} ms"
        )
    return (
        f"searching {study.space.count():,} schedules that take as long as the paper's in "
        f"{study.settings.run.train.epochs:g} epochs: {wanted} trials and the finalists' repeats, {begun}"
    )


def line(study: Study | ScheduleStudy, progress: Progress) -> str:
    """Return what is said of a trial that has just ended."""
    from effnet.search.schedules.space import schedule_from_json

    trial, ending = progress.trial, progress.ending
    parts = [f"trial {trial.number}: {ending.state}"]
    measures, reference_ms = ending.measures, study.settings.reference_ms
    if schedule := schedule_from_json(trial.spec, f"trial {trial.number}"):
        parts.append(f"{schedule.name}, seed {schedule.changes['train.seed']}")
    if measures and measures.accuracy is not None:
        parts.append(f"top-1 {measures.accuracy:.2%}")
    if measures and measures.train_seconds is not None:
        parts.append(f"{measures.train_seconds:.0f} s of steps")
    if measures and measures.step_ms is not None and reference_ms:
        parts.append(f"step {measures.step_ms / reference_ms:.2f} of the reference's")
    if measures and measures.params is not None:
        parts.append(f"{measures.params:,} parameters")
    if measures and ending.state == "done" and schedule is None:
        reward = study.settings.objective.reward(measures)
        parts += [] if reward is None else [f"reward {reward:.4f}"]
    if ending.reason:
        parts.append(ending.reason)
    return ", ".join(parts)


def finish(study: Study | ScheduleStudy, optuna: str | None, *, as_json: bool) -> None:
    """Write the report and print it; copy the study to Optuna's storage where that is asked for."""
    from filelock import FileLock

    from effnet.search.study import Study

    # Several processes of this machine may come to the end at once.
    study.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(study.folder / ".report.lock"):
        written = _networks(study) if isinstance(study, Study) else _schedules(study)
        if optuna:
            _copy_to_optuna(study, optuna)
    if int(os.environ.get("RANK", "0")):
        return
    if as_json:
        print_json(written.plain | {"files": {name: str(path) for name, path in written.files.items()}})
        return
    if written.rows:
        print_table(written.columns, written.rows)
    for state, reason, number in written.reasons:
        if state == "failed":
            typer.echo(f"{number} failed: {reason}")
    for remark in written.remarks:
        typer.echo(remark)
    typer.echo(f"leaderboard and pictures: {', '.join(str(path) for path in written.files.values())}")
    if "best" in written.files:
        typer.echo(f"train the best with: effnet train DATA --{written.takes} {written.files['best']}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Written:
    """A report that was written, and what of it is printed."""

    files: dict[str, Path]
    plain: dict[str, Any]
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    reasons: list[tuple[str, str, int]]
    takes: str
    """The option of ``effnet train`` that takes the best."""
    remarks: tuple[str, ...] = ()


def _networks(study: Study) -> _Written:
    from effnet.search.leaderboard import cells, columns, write_report
    from effnet.search.report import build_report

    report = build_report(
        study.ledger.trials(), study.space, study.settings.objective, study=study.ledger.name
    )
    return _Written(
        files=write_report(report, study.folder),
        plain=report.to_dict(),
        columns=columns(report),
        rows=cells(report, _SHOWN) if report.winner else [],
        reasons=report.reasons,
        takes="model",
    )


def _schedules(study: ScheduleStudy) -> _Written:
    from effnet.search.schedules.report import COLUMNS, build_report, cells, write_report

    report = build_report(study.ledger.trials(), study.space, study.settings.run, study=study.ledger.name)
    return _Written(
        files=write_report(report, study.folder),
        plain=report.to_dict(),
        columns=COLUMNS,
        rows=cells(report, _SHOWN),
        reasons=report.reasons,
        takes="recipe",
        remarks=(report.verdict,),
    )


def _copy_to_optuna(study: Study | ScheduleStudy, url: str) -> None:
    from effnet.search.optuna_export import export_to_optuna

    export_to_optuna(
        study.ledger,
        url,
        name=study.folder.resolve().name,
        variables=study.point_variables,
        objective=study.settings.objective,
    )
