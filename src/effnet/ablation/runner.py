"""Run the cells of an ablation, several at a time, each a run of its own that can be continued."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.ablation.table import FIRST_SEED, Ablation, Cell, Form
from effnet.config import Config
from effnet.data.sources import absolute_source
from effnet.errors import UserError, did_you_mean
from effnet.recipes import resolve_config
from effnet.runs import PlannedRun, do_runs, keep_settings, sole_user


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """An ablation on somebody's data, in a folder."""

    ablation: Ablation
    full: bool
    data: str
    """As ``data.source``, absolute."""
    changes: tuple[str, ...]
    """Of all cells, beside those of the ablation."""
    out: Path
    seeds: int
    """Runs of each cell, with the seeds 0, 1 ..."""
    jobs: int
    """Runs at a time."""
    cells: tuple[Cell, ...]
    """Those that are run."""

    @property
    def form(self) -> Form:
        """The ablation at its scale."""
        return self.ablation.form(full=self.full)

    @property
    def recipe_path(self) -> Path:
        """What all cells share, as it was when the folder was begun."""
        return self.out / "recipe.toml"

    @property
    def base(self) -> Config:
        """What all cells share."""
        return resolve_config(
            self.form.recipe, (*self.form.changes, *self.changes), values={"data.source": self.data}
        )

    def config(self, cell: Cell) -> Config:
        """Return the configuration of a cell, but for seed and threads."""
        return resolve_config(self.form.recipe, self.settings(cell), values={"data.source": self.data})

    def settings(self, cell: Cell) -> tuple[str, ...]:
        """Return what a cell sets, in the order in which later ones win."""
        return (*self.form.changes, *self.changes, *cell.all_changes(self.base))


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One cell with one seed, and how it ended."""

    cell: Cell
    seed: int
    planned: PlannedRun

    @property
    def run(self) -> Path:
        """Its folder."""
        return self.planned.run

    @property
    def result(self) -> dict[str, Any] | None:
        """Of `effnet.training.loop.RunResult`; None: not finished."""
        return self.planned.result

    @property
    def failure(self) -> str:
        """Why it has no result; empty: nobody has tried yet."""
        return self.planned.failure

    @property
    def name(self) -> str:
        """For messages."""
        return self.planned.name

    @property
    def log_path(self) -> Path:
        """What the run printed."""
        return self.planned.log_path


def plan_study(
    ablation: Ablation,
    data: str,
    out: Path,
    *,
    full: bool = False,
    seeds: int = 3,
    jobs: int = 1,
    changes: Sequence[str] = (),
    cells: Sequence[str] = (),
) -> Study:
    """Check what was asked for, before anything is run.

    Args:
        ablation: What to run.
        data: As ``data.source``.
        out: Folder of all runs and of the report; one that was begun is continued.
        full: With the paper's networks and lengths.
        seeds: Runs of each cell.
        jobs: Runs at a time.
        changes: Of all cells, as ``--set`` takes them.
        cells: Names of the cells to run; empty: all.

    Raises:
        UserError: There is no such cell; a change is not valid, or is what the ablation varies; or the folder
            holds another ablation.
    """
    form = ablation.form(full=full)
    study = Study(
        ablation=ablation,
        full=full,
        data=absolute_source(data),
        changes=tuple(changes),
        out=out,
        seeds=seeds,
        jobs=jobs,
        cells=_chosen(form, cells),
    )
    for cell in form.cells:
        _check_varied(ablation, cell, changes)
        study.config(cell)
    return study


def _chosen(form: Form, names: Sequence[str]) -> tuple[Cell, ...]:
    known = {cell.name: cell for cell in form.cells}
    for name in names:
        if name not in known:
            raise UserError(f"there is no cell '{name}'{did_you_mean(name, known)}")
    return tuple(cell for cell in form.cells if cell.name in names or not names)


def _check_varied(ablation: Ablation, cell: Cell, changes: Sequence[str]) -> None:
    for change in changes:
        if (key := change.partition("=")[0].strip()) in cell.varied | {"train.seed"}:
            raise UserError(f"{ablation.name} sets {key} itself, so that --set cannot; leave it out")


def run_study(study: Study, announce: Callable[[str], None]) -> list[Trial]:
    """Run all that has not been run yet.

    Args:
        study: Of `plan_study`.
        announce: Told what begins and how it ended.

    Returns:
        All trials of the study's cells, in the order of the table; those that failed say why, and are tried
        again the next time.

    Raises:
        InterruptedRunsError: SIGINT or SIGTERM came; all runs have saved their state.
        UserError: The folder holds another ablation, or is being written to.
    """
    with sole_user(study.out) as lock:
        keep_settings(study.recipe_path, study.base, _settings(study))
        trials = read_trials(study)
        # Seed by seed, so that a whole table comes early.
        waiting = sorted((trial for trial in trials if not trial.result), key=lambda trial: trial.seed)
        ended = do_runs(
            [trial.planned for trial in waiting],
            study.recipe_path,
            jobs=study.jobs,
            lock=lock,
            announce=announce,
        )
        done = {planned.run: planned for planned in ended}
    return [
        Trial(cell=trial.cell, seed=trial.seed, planned=done.get(trial.run, trial.planned))
        for trial in trials
    ]


def read_trials(study: Study) -> list[Trial]:
    """Return all trials with the results that there are."""
    return [
        Trial(cell=cell, seed=seed, planned=_planned(study, cell, seed).with_result())
        for cell in study.cells
        for seed in range(FIRST_SEED, FIRST_SEED + study.seeds)
    ]


def _planned(study: Study, cell: Cell, seed: int) -> PlannedRun:
    return PlannedRun(
        name=f"{cell.name}, seed {seed}",
        data=study.data,
        settings=(*study.settings(cell), f"train.seed={seed}"),
        run=study.out / cell.name / f"seed-{seed}",
    )


def _settings(study: Study) -> dict[str, Any]:
    """Return what the runs of a folder have in common, beside their recipe."""
    return {
        "ablation": study.ablation.name,
        "full": study.full,
        "data": study.data,
        "recipe": study.form.recipe,
        "cells": {cell.name: list(study.settings(cell)) for cell in study.form.cells},
    }


def command(study: Study, trial: Trial) -> list[str]:
    """Return the arguments of ``effnet`` that run a trial from its beginning."""
    return trial.planned.command(study.form.recipe, study.jobs)
