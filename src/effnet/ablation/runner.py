"""Run the cells of an ablation, several at a time, each a run of its own that can be continued."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from effnet.ablation.table import FIRST_SEED, Ablation, Cell, Form
from effnet.config import Config
from effnet.data.sources import absolute_source
from effnet.data.threads import thread_count
from effnet.errors import UserError, did_you_mean
from effnet.files import whole_file
from effnet.recipes import config_to_toml, load_recipe, resolve_config
from effnet.training.interrupt import listen_for_interruption
from effnet.training.journal import CONFIG_FILE

_EFFNET = (sys.executable, "-m", "effnet")
_POLL_SECONDS = 0.1


class InterruptedAblationError(Exception):
    """Somebody asked to stop; all runs have saved their state."""


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
    def threads(self) -> int:
        """Threads of each run."""
        return max(thread_count(0) // self.jobs, 1)

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
    run: Path
    result: dict[str, Any] | None = None
    """Of `effnet.training.loop.RunResult`; None: not finished."""
    failure: str = ""
    """Why it has no result; empty: nobody has tried yet."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.cell.name}, seed {self.seed}"

    @property
    def result_path(self) -> Path:
        """Where the result is kept, beside the run."""
        return self.run.with_suffix(".json")

    @property
    def log_path(self) -> Path:
        """What the run printed."""
        return self.run.with_suffix(".log")


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
        InterruptedAblationError: SIGINT or SIGTERM came; all runs have saved their state.
        UserError: The folder holds another ablation, or is being written to.
    """
    study.out.mkdir(parents=True, exist_ok=True)
    with _sole_user(study.out) as lock:
        _check_settings(study)
        trials = read_trials(study)
        # Seed by seed, so that a whole table comes early.
        waiting = sorted((trial for trial in trials if not trial.result), key=lambda trial: trial.seed)
        done = {trial.run: trial for trial in _run_all(study, waiting, announce, lock)}
    return [done.get(trial.run, trial) for trial in trials]


def read_trials(study: Study) -> list[Trial]:
    """Return all trials with the results that there are."""
    trials = []
    for cell in study.cells:
        for seed in range(FIRST_SEED, FIRST_SEED + study.seeds):
            trial = Trial(cell=cell, seed=seed, run=study.out / cell.name / f"seed-{seed}")
            if trial.result_path.is_file():
                trial = replace(trial, result=json.loads(trial.result_path.read_text(encoding="utf-8")))
            trials.append(trial)
    return trials


@contextmanager
def _sole_user(out: Path) -> Iterator[TextIO]:
    """Lock a folder. Runs inherit the lock, so that those of a parent that was killed hold it, too."""
    with (out / ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"runs in {out} are still going on; wait for them, or give another --out"
            ) from None
        yield file


def _check_settings(study: Study) -> None:
    """Note what the folder is about, or make sure that it is about the same.

    Raises:
        UserError: It is about something else.
    """
    settings = {
        "ablation": study.ablation.name,
        "full": study.full,
        "data": study.data,
        "recipe": study.form.recipe,
        "cells": {cell.name: list(study.settings(cell)) for cell in study.form.cells},
    }
    recipe_path, settings_path = study.recipe_path, study.out / "settings.json"
    if recipe_path.is_file() and load_recipe(str(recipe_path)) != study.base:
        raise UserError(_other_settings(recipe_path))
    if settings_path.is_file() and json.loads(settings_path.read_text(encoding="utf-8")) != settings:
        raise UserError(_other_settings(settings_path))
    with whole_file(recipe_path) as temporary:
        temporary.write_text(config_to_toml(study.base), encoding="utf-8")
    with whole_file(settings_path) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _other_settings(path: Path) -> str:
    return (
        f"{path.parent} was begun with other settings, see {path}; give what it was begun with, or another "
        "folder with --out"
    )


def _run_all(
    study: Study, waiting: Sequence[Trial], announce: Callable[[str], None], lock: TextIO
) -> Iterator[Trial]:
    left, running = list(waiting), list[tuple[Trial, subprocess.Popen[str]]]()
    try:
        with listen_for_interruption() as interruption:
            while running or (left and not interruption.is_requested):
                while left and len(running) < study.jobs and not interruption.is_requested:
                    trial = left.pop(0)
                    announce(f"{trial.name}: {'continued' if _is_begun(trial) else 'begun'}")
                    running.append((trial, _start(study, trial, lock)))
                if interruption.is_requested:
                    for _, process in running:
                        process.send_signal(signal.SIGINT)
                    for _, process in running:
                        process.wait()
                    break
                time.sleep(_POLL_SECONDS)
                for trial, process in [pair for pair in running if pair[1].poll() is not None]:
                    running.remove((trial, process))
                    yield _ended(trial, process, announce)
            if interruption.is_requested:
                raise InterruptedAblationError(
                    f"stopped; what was trained is saved in {study.out}, and the same command continues it"
                )
    finally:
        for _, process in running:
            process.kill()
            with process:  # Closes the pipe and waits.
                pass


def _is_begun(trial: Trial) -> bool:
    return (trial.run / CONFIG_FILE).is_file()


def command(study: Study, trial: Trial) -> list[str]:
    """Return the arguments of ``effnet`` that run a trial from its beginning."""
    return _command(study, trial, study.form.recipe)


def _command(study: Study, trial: Trial, recipe: str) -> list[str]:
    settings = (*study.settings(trial.cell), f"train.seed={trial.seed}", f"data.workers={study.threads}")
    changes = [part for setting in settings for part in ("--set", setting)]
    return ["train", study.data, "--recipe", recipe, "--out", str(trial.run), *changes]


def _start(study: Study, trial: Trial, lock: TextIO) -> subprocess.Popen[str]:
    if _is_begun(trial):
        arguments = ["train", "--resume", str(trial.run)]
    else:
        arguments = _command(study, trial, str(study.recipe_path))
    trial.run.parent.mkdir(exist_ok=True)
    with trial.log_path.open("w", encoding="utf-8") as log:
        log.write(f"effnet {shlex.join(arguments)}\n")
        log.flush()
        return subprocess.Popen(
            [*_EFFNET, *arguments, "--quiet", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(study.threads)},
            pass_fds=[lock.fileno()],
            # Ctrl-C goes to us alone: a run that is asked to stop twice does not save its state.
            start_new_session=True,
        )


def _ended(trial: Trial, process: subprocess.Popen[str], announce: Callable[[str], None]) -> Trial:
    output, _ = process.communicate()
    if process.returncode == 0:
        result = json.loads(output)
        with whole_file(trial.result_path) as temporary:
            temporary.write_text(output, encoding="utf-8")
        announce(f"{trial.name}: top-1 {result['val_top1']:.2%}")
        return replace(trial, result=result)
    lines = trial.log_path.read_text(encoding="utf-8").splitlines()[1:]
    reason = lines[-1].removeprefix("effnet: ") if lines else f"it ended with code {process.returncode}"
    announce(f"{trial.name}: failed: {reason}")
    return replace(trial, failure=reason)
