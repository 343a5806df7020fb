"""Training steps and the loader of one run, measured one after the other, and the choices kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.config import Config
from effnet.training.batch_sizes import BatchSpeed, measure_batch_sizes
from effnet.training.compute import ComputeTuning, tune_compute
from effnet.training.computing_threads import computing_threads
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.stopwatch import Stopwatch
from effnet.training.thread_tuning import ThreadTuning, tune_threads
from effnet.training.tune import Tuning, tune
from effnet.training.tuned import keep_choice, loader_subject
from effnet.training.unread import prepare_unread


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTuning:
    """What was measured for a run, and where the choices are kept."""

    compute: ComputeTuning
    batches: tuple[BatchSpeed, ...]
    loader: Tuning | None
    """None where there were no images to read."""
    threads: ThreadTuning | None
    """None where there was nothing to divide."""
    kept: tuple[Path, ...]
    """Files that later runs read; empty where nothing was to be kept."""
    seconds: float
    """That it took to measure all this."""

    @property
    def changes(self) -> tuple[str, ...]:
        """The fastest settings, as ``--set`` takes them."""
        changes = self.compute.fastest.compute.changes | self.loaded
        return tuple(f"{key}={value}" for key, value in changes.items())

    @property
    def loaded(self) -> dict[str, str | int]:
        """Those of the loader, and of the threads beside it."""
        return (self.loader.changes if self.loader else {}) | (self.threads.changes if self.threads else {})

    def to_dict(self) -> dict[str, Any]:
        """Return the tuning as ``effnet tune --json`` prints it."""
        return (self.loader.to_dict() if self.loader else {}) | {
            "changes": list(self.changes),
            "compute": self.compute.to_dict(),
            "batch_sizes": [speed.to_dict() for speed in self.batches],
            "threads": self.threads.to_dict() if self.threads else None,
            "kept": [str(path) for path in self.kept],
            "tuning_seconds": self.seconds,
        }


def tune_run(config: Config, *, compiles: bool, keeps: bool, report: Callable[[str], None]) -> RunTuning:
    """Measure how a run's training steps and its loader are fastest.

    Args:
        config: Of the run. Kernels, memory format, precision and compilation are not varied where they are
            not ``auto``.
        compiles: Whether compiled networks are measured too.
        keeps: Whether runs that say ``auto`` shall use what was found.
        report: Told what is measured next.

    Raises:
        UserError: Something in the configuration cannot be had.
        OSError: What was found cannot be kept.
    """
    clock = Stopwatch()
    experiment = _with_choices_of(prepare_experiment(config), config)
    with computing_threads(experiment.config.train.threads, experiment.device):
        compute = tune_compute(experiment, report, compiles=compiles)
        batches = measure_batch_sizes(experiment, compute, report)
        run = compute.fastest.compute.applied_to(experiment)
        loader = tune(run, report)
        threads = tune_threads(run, loader, report)
    tuning = RunTuning(
        compute=compute,
        batches=batches,
        loader=loader,
        threads=threads,
        kept=(),
        seconds=clock.seconds,
    )
    if keeps:
        sizes = tuple(stage.image_size for stage in experiment.schedule.stages)
        about = loader_subject(experiment.config, sizes, experiment.device)
        kept = (
            keep_choice(compute.about, compute.fastest.compute.changes),
            keep_choice(about, tuning.loaded),
        )
        tuning = replace(tuning, kept=kept)
    return tuning


def tune_network(config: Config, *, compiles: bool, keeps: bool, report: Callable[[str], None]) -> RunTuning:
    """Measure how the training steps of a recipe are fastest, without its images.

    Args:
        config: Of a run with ``data.train_images``, which says how long its stages are.
        compiles: Whether compiled networks are measured too.
        keeps: Whether runs that say ``auto`` shall use what was found.
        report: Told what is measured next.

    Raises:
        UserError: Something in the configuration cannot be had.
        OSError: What was found cannot be kept.
    """
    clock = Stopwatch()
    experiment = _with_choices_of(prepare_unread(config), config)
    with computing_threads(experiment.config.train.threads, experiment.device):
        compute = tune_compute(experiment, report, compiles=compiles)
        batches = measure_batch_sizes(experiment, compute, report)
    kept = (keep_choice(compute.about, compute.fastest.compute.changes),) if keeps else ()
    return RunTuning(
        compute=compute, batches=batches, loader=None, threads=None, kept=kept, seconds=clock.seconds
    )


def _with_choices_of(experiment: Experiment, config: Config) -> Experiment:
    """Return a run that leaves open again what its configuration left open before it was resolved."""
    train = replace(
        experiment.config.train,
        kernels=config.train.kernels,
        memory_format=config.train.memory_format,
        precision=config.train.precision,
        compile=config.train.compile,
        threads=config.train.threads,
    )
    data = replace(experiment.config.data, workers=config.data.workers)
    return replace(experiment, config=replace(experiment.config, train=train, data=data))
