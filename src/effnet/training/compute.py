"""Which memory format, precision and compilation make a run's training steps the fastest on this device.

A network is compiled for each image size alone (static shapes); what a stage changes otherwise, its drop
rates, is in buffers and compiles nothing anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import fmean, median
from typing import Any, Literal, TypeAlias

import torch

from effnet.config import TrainConfig
from effnet.data.loader import Batch
from effnet.schedule.condense import condensed
from effnet.schedule.progressive import StageSettings
from effnet.training.batches import noise_batch
from effnet.training.experiment import Experiment, supports_bf16
from effnet.training.preflight import fitting_batch, peak_memory
from effnet.training.step import initial_state, set_phase
from effnet.training.timing import time_step, time_steps
from effnet.training.tuned import compute_subject

MemoryFormat: TypeAlias = Literal["channels_last", "contiguous"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
CompileMode: TypeAlias = Literal["off", "default", "reduce-overhead", "max-autotune-no-cudagraphs"]

ROUNDS = 3
"""How often each candidate is measured, in turns; the median counts."""
_SECONDS = 0.5
_MOST_STEPS = 20
_CPU_STEP_SECONDS = 1.0
_PROBE_IMAGES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """How training steps are computed."""

    memory_format: MemoryFormat
    precision: Precision
    compile: CompileMode

    @property
    def changes(self) -> dict[str, str | int]:
        """The settings under their keys."""
        return {f"train.{name}": value for name, value in asdict(self).items()}

    def applied_to(self, experiment: Experiment) -> Experiment:
        """Return the run computed in this way."""
        train = replace(experiment.config.train, **asdict(self))
        config = replace(experiment.config, train=train)
        return replace(experiment, config=config)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCompute:
    """How fast one stage is in one way to compute it."""

    settings: StageSettings
    batch_size: int
    """That was measured: on a processor at most what takes about a second, on a GPU what fits."""
    seconds_per_image: tuple[float, ...]
    """One for each round."""
    first_seconds: float
    """Of the first step: choosing kernels, and compilation where there is any."""
    memory_bytes: int
    """Peak memory of a GPU; 0 on a processor."""

    @property
    def images_per_second(self) -> float:
        """Median over the rounds."""
        return 1 / median(self.seconds_per_image)

    @property
    def seconds(self) -> float:
        """Predicted time of the stage's steps and of getting ready for them."""
        images = self.settings.steps * self.settings.batch_size
        return images * median(self.seconds_per_image) + self.first_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured under its names."""
        rates = sorted(1 / seconds for seconds in self.seconds_per_image)
        return {
            "stage": self.settings.stage,
            "image_size": self.settings.image_size,
            "batch_size": self.batch_size,
            "images_per_second": self.images_per_second,
            "images_per_second_range": [rates[0], rates[-1]],
            "first_step_seconds": self.first_seconds,
            "memory_bytes": self.memory_bytes,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to compute a run, and what it came to."""

    compute: Compute
    stages: tuple[StageCompute, ...]
    """Empty where it failed."""
    failure: str = ""

    @property
    def seconds(self) -> float:
        """Predicted time of all steps, compilation included; infinite where it failed."""
        return sum(stage.seconds for stage in self.stages) if self.stages else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured under its names."""
        return asdict(self.compute) | {
            "seconds": self.seconds if self.stages else None,
            "failure": self.failure or None,
            "stages": [stage.to_dict() for stage in self.stages],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeTuning:
    """All candidates, and the one with which the run takes the least time."""

    candidates: tuple[Candidate, ...]
    fastest: Candidate
    about: dict[str, Any]
    """For `effnet.training.tuned.keep_choice`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the tuning as ``effnet tune --json`` prints it."""
        return {
            "changes": self.fastest.compute.changes,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def candidates_for(train: TrainConfig, device: torch.device, *, compiles: bool) -> tuple[Compute, ...]:
    """Return the ways to compute that are to be measured; what the configuration fixes is not varied.

    Args:
        train: ``auto`` leaves a choice.
        device: bf16 is tried where the device computes in it and not merely imitates it.
        compiles: Whether compilation, which takes minutes, is among them.
    """
    formats: tuple[MemoryFormat, ...] = ("channels_last", "contiguous")
    if train.memory_format != "auto":
        formats = (train.memory_format,)
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if supports_bf16(device) else ("fp32",)
    if train.precision != "auto":
        precisions = (train.precision,)
    modes: tuple[CompileMode, ...] = ("off", "default") if compiles else ("off",)
    if compiles and device.type == "cuda":
        modes += ("reduce-overhead", "max-autotune-no-cudagraphs")
    if train.compile != "auto":
        modes = (train.compile,)
    return tuple(
        Compute(memory_format=memory_format, precision=precision, compile=mode)
        for mode, precision, memory_format in product(modes, precisions, formats)
    )


def tune_compute(
    experiment: Experiment, report: Callable[[str], None], *, compiles: bool = False
) -> ComputeTuning:
    """Measure training steps of every stage in every way to compute them.

    The candidates take turns, so that what else the machine does meets all of them. One that fails, by
    running out of memory or because the compiler is missing, is told and left out.

    Args:
        experiment: The run; its weights and files are not touched.
        report: Told what is measured next.
        compiles: Whether compiled networks are among the candidates; each takes minutes on a processor.

    Raises:
        RuntimeError: All candidates failed.
    """
    candidates = candidates_for(experiment.config.train, experiment.device, compiles=compiles)
    measured = tuple(_take_turns(experiment, candidates, report))
    fastest = min(measured, key=lambda candidate: candidate.seconds)
    if not fastest.stages:
        raise RuntimeError(f"no way to compute a training step works here: {fastest.failure}")
    return ComputeTuning(
        candidates=measured,
        fastest=fastest,
        about=compute_subject(
            experiment.spec, tuple(s.image_size for s in experiment.schedule.stages), experiment.device
        ),
    )


def _take_turns(
    experiment: Experiment, candidates: tuple[Compute, ...], report: Callable[[str], None]
) -> Iterator[Candidate]:
    stages: dict[Compute, list[StageCompute]] = {compute: [] for compute in candidates}
    failures: dict[Compute, str] = {}
    for settings in condensed(experiment.schedule).stages:
        report(f"steps at {settings.image_size} px in {len(candidates) - len(failures)} ways")
        count = _bearable(experiment, settings)
        runs: dict[Compute, _Turns] = {}
        for compute in candidates:
            if compute not in failures:
                with _failure_noted(failures, compute):
                    runs[compute] = _Turns(compute.applied_to(experiment), settings, count)
        for _ in range(ROUNDS):
            for compute in list(runs):
                with _failure_noted(failures, compute):
                    runs[compute].measure()
                if compute in failures:  # What fitted alone need not fit beside the others' networks.
                    del runs[compute]
        for compute, run in runs.items():
            stages[compute].append(run.result(settings))
    for compute in candidates:
        failure = failures.get(compute, "")
        yield Candidate(compute=compute, stages=() if failure else tuple(stages[compute]), failure=failure)


@contextmanager
def _failure_noted(failures: dict[Compute, str], compute: Compute) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, torch.OutOfMemoryError) as error:
        failures[compute] = f"{type(error).__name__}: {error}".splitlines()[0]


class _Turns:
    """One candidate at one stage: made ready, then measured whenever it is its turn."""

    def __init__(self, experiment: Experiment, settings: StageSettings, count: int) -> None:
        self._experiment = experiment
        self._state = initial_state(experiment)
        set_phase(self._state, experiment, settings, is_head_only=False)
        size, self._first_seconds = fitting_batch(
            count, lambda images: self._step(noise_batch(experiment, settings, images))
        )
        self._batch = noise_batch(experiment, settings, size)
        self._steps = min(max(int(_SECONDS / max(self._step(self._batch), 1e-9)), 1), _MOST_STEPS)
        self._rates: list[float] = []

    def measure(self) -> None:
        seconds = time_steps(self._experiment, self._state, self._batch, steps=self._steps)
        self._rates.append(fmean(seconds) / len(self._batch.labels))

    def result(self, settings: StageSettings) -> StageCompute:
        return StageCompute(
            settings=settings,
            batch_size=len(self._batch.labels),
            seconds_per_image=tuple(self._rates),
            first_seconds=self._first_seconds,
            memory_bytes=peak_memory(self._experiment.device),
        )

    def _step(self, batch: Batch) -> float:
        return time_step(self._experiment, self._state, batch)


def _bearable(experiment: Experiment, settings: StageSettings) -> int:
    """Return the stage's own batch size, or on a processor what takes about a second."""
    if experiment.device.type != "cpu":
        return settings.batch_size
    probe = noise_batch(experiment, settings, min(_PROBE_IMAGES, settings.batch_size))
    state = initial_state(experiment)
    set_phase(state, experiment, settings, is_head_only=False)
    seconds = min(time_step(experiment, state, probe) for _ in range(2))
    bearable = int(_CPU_STEP_SECONDS / max(seconds, 1e-9) * len(probe.labels))
    return min(settings.batch_size, max(bearable, len(probe.labels)))
