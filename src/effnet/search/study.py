"""A study on this machine: its folder, its ledger, and the workers that take trials from it."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event, Lock
from typing import Protocol, runtime_checkable

from effnet.arch.io import spec_from_json, spec_to_json
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.search.bounds import BoundedSpace, count
from effnet.search.history import observations
from effnet.search.hopeless import why_hopeless
from effnet.search.job import Ending, Job
from effnet.search.ledger import Ledger
from effnet.search.places import trial_threads
from effnet.search.points import Point, Strategy, Variable
from effnet.search.predictor import Measured, fit
from effnet.search.proposing import propose
from effnet.search.records import Candidate, Trial
from effnet.search.settings import SearchSettings
from effnet.search.space import SearchSpace
from effnet.search.strategies import strategy_named
from effnet.search.worker import Assignment, EnoughTrialsError, work

_SAME_FAILURES = 3
"""That many failures for one reason, and no success before, are not the candidates' fault."""
_MOST_UNTRAINED = 5
"""Trials for each that is to be trained: where nearly all fail or are rejected, the search ends."""


class SystematicFailureError(Exception):
    """Every candidate fails for the same reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """A trial that has just ended."""

    trial: Trial
    ending: Ending


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that is open."""

    ledger: Ledger
    settings: SearchSettings
    space: SearchSpace
    folder: Path
    """Of the files of this machine."""
    source: str
    """Where the images are on this machine."""

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.ledger.close()

    @cached_property
    def domain(self) -> BoundedSpace:
        """What can be proposed."""
        return BoundedSpace(
            space=self.space, bounds=self.settings.bounds, image_size=self.space.backbone.image_size
        )

    @property
    def point_variables(self) -> tuple[Variable, ...]:
        """What the indices of a trial's point mean."""
        return self.space.variables

    @property
    def reference(self) -> NetworkSpec:
        """By whose step all steps are measured; the first candidate, where the bounds let it."""
        return self.space.backbone

    def candidate(self, point: Point) -> Candidate:
        """Return a point as the ledger has it."""
        return Candidate(point=point, spec=spec_to_json(self.space.spec(point)))

    def queue_backbone(self) -> None:
        """Put the backbone before all others, so that what is found can be compared with it."""
        point = self.space.point(self.space.backbone)
        if self.domain.is_feasible(point):
            self.ledger.queue([self.candidate(point)])

    @cached_property
    def strategy(self) -> Strategy:
        """What proposes; it keeps work between asks."""
        return strategy_named(self.settings.strategy)

    def propose(self, history: Sequence[Trial]) -> Candidate:
        """Return what the strategy proposes next.

        Raises:
            UserError: All feasible points were tried.
        """
        known = observations(history, self.settings.objective)
        return self.candidate(propose(self.strategy, self.domain, known, self.settings.seed, len(history)))

    def next(self, history: Sequence[Trial], wanted: int) -> Candidate:
        """Return what the strategy proposes next.

        Raises:
            EnoughTrialsError: As many were trained as are wanted, or there is nothing left to try.
        """
        check_wanted(history, wanted)
        try:
            return self.propose(history)
        except UserError as error:
            raise EnoughTrialsError(str(error)) from error

    def why_hopeless(self, trial: Trial) -> str:
        """Say why a candidate is not worth its training, by what was measured of others; empty: it may be."""
        settings = self.settings
        if settings.reference_ms is None or trial.point == self.space.point(self.space.backbone):
            return ""
        history = self.ledger.trials()
        measured = [
            Measured(spec=_spec(other), cost=other.measures.step_ms / settings.reference_ms)
            for other in history
            if other.measures and other.measures.step_ms
        ]
        predictor = fit(measured, self.space.backbone.train_size, settings.step_images)
        if predictor is None:
            return ""
        spec = _spec(trial)
        return why_hopeless(
            predictor,
            spec,
            count(spec, self.space.backbone.image_size),
            [other.measures for other in history if other.state == "done" and other.measures],
            settings.objective,
            reference_ms=settings.reference_ms,
            max_step_ms=settings.bounds.max_step_ms,
        )


@runtime_checkable
class Searched(Protocol):
    """A study of whatever can be tried."""

    @property
    def ledger(self) -> Ledger:
        """Of the study."""

    @property
    def settings(self) -> SearchSettings:
        """Of the study."""

    @property
    def folder(self) -> Path:
        """Of the files of this machine."""

    @property
    def source(self) -> str:
        """Where the images are on this machine."""

    @property
    def reference(self) -> NetworkSpec | None:
        """By whose step all steps are measured, if they are."""

    def next(self, history: Sequence[Trial], wanted: int) -> Candidate:
        """Return what is to be tried next, or raise `EnoughTrialsError`."""

    def why_hopeless(self, trial: Trial) -> str:
        """Say why a candidate is not worth its training; empty: it may be."""


def check_wanted(history: Sequence[Trial], wanted: int) -> None:
    """End a search that has tried enough.

    Args:
        history: All that was proposed.
        wanted: Candidates to train.

    Raises:
        EnoughTrialsError: So many were trained, or nearly all fail or are rejected.
    """
    kept = sum(trial.state not in {"failed", "rejected"} for trial in history)
    if kept >= wanted or len(history) >= _MOST_UNTRAINED * wanted:
        raise EnoughTrialsError(f"{kept} candidates were trained")


def run_study(
    study: Searched,
    *,
    trials: int,
    hours: float | None,
    workers: int,
    stop: Event,
    report: Callable[[Progress], None],
) -> None:
    """Let workers take trials until there are enough, time is out, or ``stop`` is set.

    Args:
        study: Open.
        trials: That are to be trained in the whole study, on all machines.
        hours: After which no trial is begun here; None: any time.
        workers: Trials at a time on this machine, which share its processors evenly.
        stop: Set by whoever wants running trials saved and handed back.
        report: Told of each trial that ended here, one at a time.

    Raises:
        SystematicFailureError: All candidates fail for the same reason.
        UnreachableError: The database is away for too long; what is known is kept for the next time.
    """
    watch = _Watch(stop, report)
    assignment = Assignment(
        ledger=study.ledger,
        job=Job(
            settings=study.settings,
            source=study.source,
            threads=trial_threads(workers),
            reference=study.reference,
        ),
        trials=study.folder / "trials",
        propose=lambda history: study.next(history, trials),
        why_hopeless=study.why_hopeless,
        stop=stop,
        deadline=time.monotonic() + hours * 3600 if hours else float("inf"),
        told=watch.ended,
    )
    assignment.outbox.send_left(study.ledger)
    name = f"{socket.gethostname()}-{os.getpid()}"
    names = [name if workers == 1 else f"{name}-{number + 1}" for number in range(workers)]
    with ThreadPoolExecutor(workers, "worker") as pool:
        futures = [pool.submit(work, assignment, each, place) for place, each in enumerate(names)]
    for future in futures:
        future.result()
    if watch.failure:
        raise SystematicFailureError(watch.failure)


def _spec(trial: Trial) -> NetworkSpec:
    return spec_from_json(trial.spec, f"trial {trial.number}")


class _Watch:
    """Counts how the trials of this session end, and stops it where all fail alike."""

    def __init__(self, stop: Event, report: Callable[[Progress], None]) -> None:
        self._stop, self._report = stop, report
        self._lock = Lock()
        self._reasons: list[str] | None = []
        self.failure = ""

    def ended(self, trial: Trial, ending: Ending) -> None:
        """Be told of a trial."""
        with self._lock:
            self._report(Progress(trial=trial, ending=ending))
            if ending.state in {"done", "stopped"}:
                self._reasons = None
            if self._reasons is None or ending.state != "failed":
                return
            self._reasons.append(_kind(ending.reason))
            if len(self._reasons) >= _SAME_FAILURES and len({*self._reasons}) == 1:
                self.failure = (
                    f"the first {len(self._reasons)} candidates all failed for the same reason, so that it "
                    f"is hardly theirs: {ending.reason}"
                )
                self._stop.set()


def _kind(reason: str) -> str:
    """Return a reason without what differs between candidates: numbers and paths."""
    return re.sub(r"\S*/\S*|\d+", "", reason)
