"""Configure, prepare, tune, train and resume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from effnet.api.reading import run_config, weights_of
from effnet.config import Config, WorkerChoice
from effnet.data.copies import CopySettings, sides_for
from effnet.data.images import DataSplit
from effnet.data.prepare import PreparedStore, prepare_store
from effnet.data.processes import join_processes
from effnet.data.selection import ALL, Selection
from effnet.errors import UserError
from effnet.recipes import config_to_toml, resolve_config
from effnet.training.batches import check_workers
from effnet.training.display import open_display
from effnet.training.experiment import Experiment, prepare_experiment, sizes_needed
from effnet.training.fitting import with_fitting_micro_batch
from effnet.training.graphs import check_recording
from effnet.training.journal import Run, create_run, default_run_path, holds_run, open_run
from effnet.training.keeper import checkpoints_in
from effnet.training.kernel_choice import check_kernels, kernels_line
from effnet.training.loop import RunResult
from effnet.training.loop import train as run_training
from effnet.training.same_run import check_same_config
from effnet.training.split import check_split, write_split
from effnet.training.tracking import check_tracking
from effnet.training.tune_run import RunTuning, tune_network, tune_run
from effnet.training.waiting import wait_advice


def configure(
    data: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    model: str | Path | None = None,
    weights: str | Path | None = None,
    changes: Sequence[str] = (),
) -> Config:
    """Return a recipe with changes.

    Args:
        data: What to train on; see ``data.source``.
        recipe: Name or file. None: ``demo`` for digits, ``finetune`` with weights, else ``scratch``.
        model: Name of a network or file of a spec; the recipe's scaling of its own network then falls away.
        weights: Run, file or hub name to start from.
        changes: Single values, as ``"train.epochs=10"``; they win over everything else.

    Raises:
        UserError: There is no such recipe, key, or value.
    """
    if recipe is None:
        is_digits = data is None or str(data) == "digits"
        recipe = "finetune" if weights else "demo" if is_digits else "scratch"
    values: dict[str, str | float] = {}
    if data is not None:
        values["data.source"] = str(data)
    if model is not None:
        values |= {"model.network": str(model), "model.width": 1.0, "model.depth": 1.0}
    if weights is not None:
        values["model.weights"] = weights_of(weights)
    return resolve_config(str(recipe), changes, values=values)


def train(
    data: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    model: str | Path | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    changes: Sequence[str] = (),
    resume: Literal["auto"] | None = None,
    quiet: bool = False,
) -> RunResult:
    """Train a network, as ``effnet train`` does; arguments as for `configure`.

    Args:
        data: What to train on.
        recipe: Name or file of a recipe.
        model: Name of a network or file of a spec.
        weights: File or hub name to start from.
        out: Folder of the run; None: ``runs/<date>-<time>-<model>``.
        changes: Single values, as ``"train.epochs=10"``.
        resume: ``auto``: continue the run in ``out`` if there is one.
        quiet: Show nothing while training.

    Raises:
        UserError: Something that was given cannot be used.
    """
    config = configure(data, recipe=recipe, model=model, weights=weights, changes=changes)
    if resume is None:
        return start_run(config, Path(out) if out else None, quiet=quiet)
    if out is None:
        raise UserError("resume='auto' needs the folder of the run; give out")
    return start_or_resume_run(config, Path(out), quiet=quiet)


def start_run(
    config: Config, out: Path | None = None, *, quiet: bool = False, images: DataSplit | None = None
) -> RunResult:
    """Train from a configuration in a new run directory, with all processes that torchrun has started.

    Args:
        config: Of the run, see `configure`.
        out: Its folder; None: ``runs/<date>-<time>-<model>``.
        quiet: Show nothing while training.
        images: What ``config.data`` names, where it is open already.

    Raises:
        UserError: Something in the configuration cannot be had.
    """
    with join_processes(config.train.device) as processes:
        experiment, told = with_fitting_micro_batch(
            prepare_experiment(config, data=images, processes=processes)
        )
        path = out or default_run_path(experiment.spec.name)
        _check_out(path, Path(experiment.config.data.source))
        check_tracking(experiment.config.tracking)
        check_kernels(experiment.config.train, experiment.device)
        check_recording(experiment)
        check_workers(experiment.config.data, experiment.data.train)
        if processes.is_first:
            run = create_run(path, config_to_toml(experiment.config))
            write_split(run.split_path, experiment.data)
        # The others wait here until there is a folder, whose name may say when it was made.
        path = Path(processes.gather_text(str(path))[0])
        run = run if processes.is_first else Run(path)
        return _train(experiment, run, quiet=quiet, resume=False, told=told)


def start_or_resume_run(config: Config, out: Path, *, quiet: bool = False) -> RunResult:
    """Continue the run in a folder, or start it where there is none: the same call begins and goes on.

    Args:
        config: Of the run, see `configure`.
        out: Its folder.
        quiet: Show nothing while training.

    Raises:
        UserError: As `start_run` and `resume_run`, or the run was started with another configuration.
    """
    with join_processes(config.train.device) as processes:
        # All look before one of them makes the folder.
        is_there = processes.any(holds_run(out))
    if not is_there:
        return start_run(config, out, quiet=quiet)
    check_same_config(config, run_config(open_run(out)), out)
    return resume_run(out, quiet=quiet)


def _check_out(path: Path, source: Path) -> None:
    """Refuse a run that the next one would take for a class, or for images of one."""
    if not source.is_dir() or not path.resolve().is_relative_to(source):
        return
    is_beside_splits = (source / "train").is_dir() and path.resolve().relative_to(source).parts[:1] == (
        "runs",
    )
    if not is_beside_splits:
        raise UserError(
            f"the run {path} would lie among its images in {source}; choose another folder with --out"
        )


def tune(
    config: Config,
    *,
    has_data: bool = True,
    compiles: bool = False,
    keeps: bool = True,
    report: Callable[[str], None] | None = None,
) -> RunTuning:
    """Measure which settings are fastest for a run on this machine, as ``effnet tune`` does.

    Args:
        config: Of the run, see `configure`.
        has_data: Whether its images can be read; else only training steps are measured, on noise.
        compiles: Whether compiled networks are measured too, which takes minutes on a processor.
        keeps: Whether runs that say ``auto`` shall use what was found.
        report: Told what is measured next.

    Raises:
        UserError: Something in the configuration cannot be had.
        OSError: What was found cannot be kept.
    """
    measure = tune_run if has_data else tune_network
    return measure(config, compiles=compiles, keeps=keeps, report=report or (lambda text: None))


def resume_run(path: Path, *, quiet: bool = False) -> RunResult:
    """Continue a run at the exact step of its last checkpoint.

    Raises:
        UserError: It is no run, a file of it is damaged, or its data is not what it was. A run that is
            finished gives its result again.
    """
    run = open_run(path)
    config = run_config(run)
    with join_processes(config.train.device) as processes:
        is_begun = bool(checkpoints_in(run.checkpoints))
        experiment = prepare_experiment(config, load=not is_begun, processes=processes)
        if run.split_path.is_file():
            check_split(run.split_path, experiment.data)
        elif processes.is_first:
            write_split(run.split_path, experiment.data)
        return _train(experiment, run, quiet=quiet, resume=True)


def prepare(
    data: str | Path,
    out: str | Path,
    settings: CopySettings,
    *,
    workers: int = 0,
    worker_kind: WorkerChoice = "auto",
    max_bad_fraction: float = 0.05,
    report: Callable[[int, int], None] | None = None,
    selection: Selection = ALL,
) -> PreparedStore:
    """Write copies of images in the sizes that training will read, as ``effnet data prepare`` does.

    Args:
        data: As ``data.source``.
        out: Folder of the store; one that was begun is continued.
        settings: Copies to make; see `sides_to_prepare`.
        workers: Threads; 0: one for each processor.
        worker_kind: Whether each of them has a process; ``auto``: where there are four or more, and
            5,000 images or more.
        max_bad_fraction: Stop when more than this share of the images cannot be read.
        report: Told how many images are read, and of how many.
        selection: Which splits and columns to use.

    Raises:
        UserError: Something that was given cannot be used.
    """
    return prepare_store(
        str(data),
        Path(out),
        settings,
        workers=workers,
        worker_kind=worker_kind,
        max_bad_fraction=max_bad_fraction,
        report=report,
        selection=selection,
    )


def sides_to_prepare(config: Config) -> tuple[int, ...]:
    """Return the short sides, in pixels, of the copies that serve all stages of a run and its evaluation.

    Raises:
        UserError: There is no such network or file.
    """
    return sides_for(*sizes_needed(config))


def _train(experiment: Experiment, run: Run, *, quiet: bool, resume: bool, told: str = "") -> RunResult:
    advice = wait_advice(
        experiment.config,
        is_gpu=experiment.device.type == "cuda",
        processors=experiment.processes.workers(0),
    )
    is_quiet = quiet or not experiment.processes.is_first
    with open_display(experiment.schedule, quiet=is_quiet, advice=advice) as display:
        for line in (told, kernels_line(experiment.config, experiment.spec, experiment.device)):
            if line:
                display.message(line)
        return run_training(experiment, run, display, resume=resume)
