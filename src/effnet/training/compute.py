"""Which kernels, memory format, precision and compilation make a run's training steps the fastest here.

A network is compiled for each image size alone (static shapes); what a stage changes otherwise, its drop
rates, is in buffers and compiles nothing anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

import torch

from effnet.data.loader import Batch
from effnet.schedule.condense import condensed
from effnet.schedule.progressive import StageSettings
from effnet.training.batches import noise_batch
from effnet.training.compiling import is_compiled
from effnet.training.experiment import Experiment
from effnet.training.preflight import fitting_batch, memory_in_use, peak_memory, release_memory, restart_peak
from effnet.training.step import initial_state, set_phase
from effnet.training.timing import time_step, time_steps
from effnet.training.tuned import compute_subject
from effnet.training.ways import TURNS, Choices, Compute, choices_for, fastest

ROUNDS = 3
"""How often each candidate is measured, in turns; the median counts."""
_SECONDS = 0.5
_READY_STEPS = 2
_MOST_STEPS = 20
_CPU_STEP_SECONDS = 1.0
_PROBE_IMAGES = 4


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
    is_compiled: bool
    """By ``torch.compile``, which every run does anew."""
    memory_bytes: int
    """Peak memory of a GPU that this way alone takes; 0 on a processor."""

    @property
    def images_per_second(self) -> float:
        """Median over the rounds."""
        return 1 / median(self.seconds_per_image)

    @property
    def step_seconds(self) -> float:
        """Predicted time of the stage's steps alone."""
        return self.settings.steps * self.settings.batch_size * median(self.seconds_per_image)

    @property
    def seconds(self) -> float:
        """Predicted time of the stage's steps, and of getting ready for them where the network is compiled.

        Otherwise what the first step takes is no property of the way: Numba and Triton keep on disk what they
        compile, and what torch prepares is there already if another way was measured before. To record a pass
        takes about as long as a few steps.
        """
        return self.step_seconds + (self.first_seconds if self.is_compiled else 0.0)

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
            "step_seconds": self.step_seconds,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to compute a run, and what it came to."""

    compute: Compute
    stages: tuple[StageCompute, ...]
    """Empty where it failed."""
    speedup: float = 0.0
    """How many times as fast steps are as those of the first way that works, all of them taken together and
    what precedes them left out; 0 where it failed."""
    cost: float = float("inf")
    """`seconds` of it relative to `step_seconds` of the first way, by which it is chosen; see `StageCompute`.
    The machine may have become slower between the two, which is made up for."""
    failure: str = ""

    @property
    def first_seconds(self) -> float:
        """Of the first steps of all stages."""
        return sum(stage.first_seconds for stage in self.stages)

    @property
    def step_seconds(self) -> float:
        """Predicted time of all steps alone; infinite where it failed."""
        return sum(stage.step_seconds for stage in self.stages) if self.stages else float("inf")

    @property
    def seconds(self) -> float:
        """Predicted time of all steps, compilation by torch included; infinite where it failed."""
        return sum(stage.seconds for stage in self.stages) if self.stages else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Return what was measured under its names."""
        return asdict(self.compute) | {
            "step_seconds": self.step_seconds if self.stages else None,
            "seconds": self.seconds if self.stages else None,
            "speedup": self.speedup or None,
            "failure": self.failure or None,
            "stages": [stage.to_dict() for stage in self.stages],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeTuning:
    """All candidates in the order of being measured, and the one that is taken."""

    candidates: tuple[Candidate, ...]
    fastest: Candidate
    """The one with which the run takes the least time; see `effnet.training.ways.fastest`."""
    about: dict[str, Any]
    """For `effnet.training.tuned.keep_choice`."""

    @property
    def precision_gain(self) -> float:
        """How many times as fast the run is as in the fastest other precision; 0 without another."""
        precision = self.fastest.compute.precision
        others = [
            other.cost for other in self.candidates if other.stages and other.compute.precision != precision
        ]
        return min(others) / self.fastest.cost if others else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the tuning as ``effnet tune --json`` prints it."""
        return {
            "changes": self.fastest.compute.changes,
            "speedup": self.fastest.speedup,
            "precision_gain": self.precision_gain or None,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def tune_compute(
    experiment: Experiment, report: Callable[[str], None], *, compiles: bool = False
) -> ComputeTuning:
    """Measure training steps of every stage in the ways to compute them that `effnet.training.ways` names.

    On a processor the ways take turns, so that what else the machine does meets all of them; on a GPU each is
    measured alone, so that it has all of the memory. The fastest so far is measured again beside those that
    follow. One that fails, by running out of memory or because the compiler is missing, is told and left out.

    Args:
        experiment: The run; its weights and files are not touched.
        report: Told what is measured next.
        compiles: Whether compiled networks are among the candidates; each takes minutes on a processor.

    Raises:
        RuntimeError: All candidates failed.
    """
    choices = choices_for(experiment.config, experiment.spec, experiment.device, compiles=compiles)
    candidates: dict[Compute, Candidate] = {}
    for following in TURNS:
        working = _costs(candidates)
        if candidates and not working:
            break
        ways = [way for way in following(choices, working) if way not in candidates]
        _take_turns(experiment, choices, ways, candidates, report)
    working = _costs(candidates)
    if not working:
        failure = next(iter(candidates.values())).failure
        raise RuntimeError(f"no way to compute a training step works here: {failure}")
    return ComputeTuning(
        candidates=tuple(candidates.values()),
        fastest=candidates[fastest(choices, working)],
        about=compute_subject(
            experiment.spec, tuple(s.image_size for s in experiment.schedule.stages), experiment.device
        ),
    )


def _costs(candidates: Mapping[Compute, Candidate]) -> dict[Compute, float]:
    return {way: found.cost for way, found in candidates.items() if found.stages}


def _take_turns(
    experiment: Experiment,
    choices: Choices,
    ways: list[Compute],
    candidates: dict[Compute, Candidate],
    report: Callable[[str], None],
) -> None:
    """Measure ways beside the fastest so far, and add them to the candidates."""
    if not ways:
        return
    working = _costs(candidates)
    best = fastest(choices, working) if working else None
    # Once compiled is enough.
    again = [best] if best is not None and not best.is_compiled else []
    found = {found.compute: found for found in _measured(experiment, [*again, *ways], report)}
    # As fast as it was, whatever the machine has become meanwhile.
    reference = next((way for way in again if found[way].stages), None)
    if reference is not None:
        unit = candidates[reference].speedup * found[reference].step_seconds
    else:
        unit = next((c.step_seconds for c in candidates.values() if c.stages), 0.0)
    for way in ways:
        candidate = found[way]
        if candidate.stages:
            unit = unit or candidate.step_seconds
            candidate = replace(
                candidate, speedup=unit / candidate.step_seconds, cost=candidate.seconds / unit
            )
        candidates[way] = candidate


def _measured(
    experiment: Experiment, ways: Sequence[Compute], report: Callable[[str], None]
) -> Iterator[Candidate]:
    stages: dict[Compute, list[StageCompute]] = {way: [] for way in ways}
    failures: dict[Compute, str] = {}
    is_alone = experiment.device.type != "cpu"
    for settings in condensed(experiment.schedule).stages:
        count, seconds = _probe(experiment, settings, ways, failures)
        left = [way for way in ways if way not in failures]
        if not left:
            break
        report(_plan(left, settings, seconds))
        for group in [[way] for way in left] if is_alone else [left]:
            for way, result in _measure_group(experiment, settings, count, group, failures).items():
                stages[way].append(result)
            release_memory(experiment.device)
    for way in ways:
        failure = failures.get(way, "")
        yield Candidate(compute=way, stages=() if failure else tuple(stages[way]), failure=failure)


def _plan(ways: Sequence[Compute], settings: StageSettings, seconds: float) -> str:
    """Return what is measured next, and how long that takes where it is known."""
    names = ", ".join(map(str, ways))
    text = f"steps at {settings.image_size} px in {len(ways)} way{'s' * (len(ways) > 1)} ({names})"
    if not seconds or any(way.is_compiled for way in ways):
        return text
    each = _READY_STEPS * seconds + ROUNDS * max(seconds, _SECONDS)
    return f"{text}, some {max(len(ways) * each, 1):.0f} s"


def _measure_group(
    experiment: Experiment,
    settings: StageSettings,
    count: int,
    ways: Sequence[Compute],
    failures: dict[Compute, str],
) -> dict[Compute, StageCompute]:
    """Measure one stage in ways that take turns; note which of them fail."""
    runs: dict[Compute, _Turns] = {}
    for way in ways:
        with _failure_noted(failures, way):
            runs[way] = _Turns(way.applied_to(experiment), settings, count)
    for _ in range(ROUNDS):
        for way in list(runs):
            with _failure_noted(failures, way):
                runs[way].measure()
            if way in failures:
                del runs[way]
    if any(way.is_compiled for way in ways):
        torch.compiler.reset()  # Or its caches keep the networks, and their graphs the memory.
    return {way: run.result(settings) for way, run in runs.items()}


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
        self._memory_before = memory_in_use(experiment.device)
        self._state = initial_state(experiment)
        set_phase(self._state, experiment, settings, is_head_only=False)
        size, self._first_seconds = fitting_batch(
            count, lambda images: self._step(noise_batch(experiment, settings, images))
        )
        self._batch = noise_batch(experiment, settings, size)
        self._steps = min(max(int(_SECONDS / max(self._step(self._batch), 1e-9)), 1), _MOST_STEPS)
        self._rates: list[float] = []
        restart_peak(experiment.device)  # What the search for kernels took does not count.

    def measure(self) -> None:
        seconds = time_steps(self._experiment, self._state, self._batch, steps=self._steps)
        self._rates.append(fmean(seconds) / len(self._batch.labels))

    def result(self, settings: StageSettings) -> StageCompute:
        return StageCompute(
            settings=settings,
            batch_size=len(self._batch.labels),
            seconds_per_image=tuple(self._rates),
            first_seconds=self._first_seconds,
            is_compiled=is_compiled(self._experiment.config),
            memory_bytes=peak_memory(self._experiment.device) - self._memory_before,
        )

    def _step(self, batch: Batch) -> float:
        return time_step(self._experiment, self._state, batch)


def _probe(
    experiment: Experiment, settings: StageSettings, ways: Sequence[Compute], failures: dict[Compute, str]
) -> tuple[int, float]:
    """Return how many images to measure with, and the seconds of such a step where they are known.

    They are the stage's own batch, or on a processor what takes the first way that works about a second.
    """
    if experiment.device.type == "cpu":
        for way in ways:
            if way not in failures:
                with _failure_noted(failures, way):
                    return _bearable(way.applied_to(experiment), settings)
    return settings.batch_size, 0.0


def _bearable(experiment: Experiment, settings: StageSettings) -> tuple[int, float]:
    probe = noise_batch(experiment, settings, min(_PROBE_IMAGES, settings.batch_size))
    state = initial_state(experiment)
    set_phase(state, experiment, settings, is_head_only=False)
    seconds = min(time_step(experiment, state, probe) for _ in range(2)) / len(probe.labels)
    bearable = int(_CPU_STEP_SECONDS / max(seconds, 1e-9))
    count = min(settings.batch_size, max(bearable, len(probe.labels)))
    return count, count * seconds
