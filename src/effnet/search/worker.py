"""A worker takes one trial after another, follows its process, and tells the ledger what came of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Literal

from effnet.arch.io import to_dict
from effnet.files import whole_file, write_json
from effnet.search.halving import is_left_behind
from effnet.search.heartbeat import Heartbeat
from effnet.search.history import rung_scores
from effnet.search.job import Ending, Job, TrialFolder, read_costs, read_ending
from effnet.search.ledger import Ledger
from effnet.search.outbox import Outbox
from effnet.search.places import trial_environment
from effnet.search.records import Candidate, Outcome, Rung, Trial
from effnet.search.trial import INTERRUPTED
from effnet.training.journal import read_metrics

_POLL_SECONDS = 0.2
_IDLE_SECONDS = 2.0
"""Between looks whether another worker's trial has become free."""
_SAVING_SECONDS = 120.0
"""That a process has to save its state before it is killed."""


class EnoughTrialsError(Exception):
    """Nothing more is to be tried; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What all workers of this machine share."""

    ledger: Ledger
    job: Job
    """But for the candidate."""
    trials: Path
    """Folder of the trials' folders."""
    propose: Callable[[list[Trial]], Candidate]
    """May raise `EnoughTrialsError`."""
    why_hopeless: Callable[[Trial], str]
    """Say why a trial is not worth beginning; empty: it is."""
    stop: Event
    """Set when running trials are to save their state and be handed back."""
    deadline: float
    """Of the monotonic clock; no trial begins after it."""
    told: Callable[[Trial, Ending], None]
    """Told how each trial ended."""
    command: tuple[str, ...] = (sys.executable, "-m", "effnet.search.trial")
    """Of a trial's process, but for its folder."""

    def folder(self, number: int) -> TrialFolder:
        """Return the folder of a trial."""
        return TrialFolder(path=self.trials / f"{number:04d}")

    @property
    def outbox(self) -> Outbox:
        """Return where outcomes are kept until the ledger has them."""
        return Outbox(self.trials / "outbox")


def work(assignment: Assignment, name: str, place: int = 0) -> None:
    """Take trials until there are enough, time is out, or somebody asks to stop.

    Args:
        assignment: Of this machine.
        name: Of the worker, for people.
        place: Its number in this process.

    Raises:
        UnreachableError: The database is away for too long; outcomes are kept for the next time.
    """
    ledger = assignment.ledger
    while not assignment.stop.is_set() and time.monotonic() < assignment.deadline:
        try:
            trial = ledger.ask(lambda history: assignment.propose(list(history)), name)
        except EnoughTrialsError:
            if all(trial.has_ended for trial in ledger.trials()):
                return
            # A worker that runs one of the others may die, and its trial be ours.
            assignment.stop.wait(_IDLE_SECONDS)
            continue
        if trial is not None:
            _take(assignment, trial, place)


def _take(assignment: Assignment, trial: Trial, place: int) -> None:
    if reason := assignment.why_hopeless(trial):
        ending: Ending | None = Ending(state="rejected", reason=reason)
    else:
        ending = _Attempt(assignment, trial, place).run()
    if ending is None:
        assignment.ledger.release(trial)
    else:
        outcome = Outcome(
            number=trial.number,
            claim=trial.claim,
            owner=trial.owner,
            state=ending.state,
            measures=ending.measures,
            reason=ending.reason,
        )
        if assignment.outbox.send(assignment.ledger, outcome):
            assignment.told(trial, ending)
        shutil.rmtree(assignment.folder(trial.number).run / "checkpoints", ignore_errors=True)


class _Attempt:
    """One try of one trial, from the start of its process to its end."""

    def __init__(self, assignment: Assignment, trial: Trial, place: int) -> None:
        self._assignment = assignment
        self._place = place
        self._trial = trial
        self._settings = assignment.job.settings
        self._folder = assignment.folder(trial.number)
        self._reported = {rung.epochs for rung in trial.rungs}
        self._seen_bytes = -1

    def run(self) -> Ending | None:
        """Return what came of it; None: it was interrupted or is not ours any more, and can be continued."""
        self._write_files()
        with Heartbeat(self._assignment.ledger, self._trial) as heartbeat:
            process = self._start()
            try:
                return self._follow(process, heartbeat)
            finally:
                _end(process, patience=0.0)

    def _write_files(self) -> None:
        folder = self._folder
        if folder.spec_path.is_file() and folder.spec_path.read_text(encoding="utf-8") != self._trial.spec:
            shutil.rmtree(folder.path)  # Left by a study that is no more.
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.ending_path.unlink(missing_ok=True)
        with whole_file(folder.spec_path) as temporary:
            temporary.write_text(self._trial.spec, encoding="utf-8")
        write_json(folder.job_path, to_dict(self._assignment.job))

    def _start(self) -> subprocess.Popen[bytes]:
        with self._folder.log_path.open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [*self._assignment.command, str(self._folder.path)],
                # Never written to: it ends when this process does, and the trial with it.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=trial_environment(os.environ, self._assignment.job.threads, self._place),
                # Ctrl-C goes to us alone: a run that is asked to stop twice does not save its state.
                start_new_session=True,
            )

    def _follow(self, process: subprocess.Popen[bytes], heartbeat: Heartbeat) -> Ending | None:
        began, limit = time.monotonic(), 60.0 * self._settings.trial_minutes
        while process.poll() is None:
            if self._assignment.stop.is_set():
                _end(process, patience=_SAVING_SECONDS)
                return read_ending(self._folder)
            if heartbeat.is_lost:
                return None
            if limit and time.monotonic() - began > limit:
                return self._ending("failed", f"it took longer than {self._settings.trial_minutes:g} minutes")
            if ending := self._compare():
                return ending
            time.sleep(_POLL_SECONDS)
        self._compare()
        if process.returncode == INTERRUPTED:
            return None
        return read_ending(self._folder) or self._ending("failed", _death(process.returncode, self._folder))

    def _compare(self) -> Ending | None:
        """Report accuracies of rungs as they come; return the end of a candidate that is left behind."""
        for rung in self._new_rungs():
            self._assignment.ledger.report_rung(self._trial, rung)
            self._reported.add(rung.epochs)
            if ending := self._judge(rung):
                return ending
        return None

    def _judge(self, rung: Rung) -> Ending | None:
        costs, objective = read_costs(self._folder), self._settings.objective
        if costs is None:
            return None
        history = self._assignment.ledger.trials()
        others = rung_scores(history, objective, rung.epochs)
        others.pop(self._trial.number, None)
        own = objective.scores(replace(costs, accuracy=rung.accuracy))
        if not is_left_behind(own, list(others.values()), self._settings.eta):
            return None
        return self._ending(
            "stopped",
            f"with {rung.accuracy:.2%} after {rung.epochs:g} epochs it was not among the best "
            f"1/{self._settings.eta} of {len(others) + 1}",
        )

    def _new_rungs(self) -> list[Rung]:
        path = self._folder.run / "metrics.jsonl"
        if not self._settings.rung_epochs or not path.is_file():
            return []
        size = path.stat().st_size
        if size == self._seen_bytes:
            return []
        self._seen_bytes = size
        evaluations = [record for record in read_metrics(path) if "val_top1" in record]
        found = []
        for epochs in self._settings.rung_epochs:
            reached = [record for record in evaluations if record["epoch"] >= epochs * (1 - 1e-6)]
            if reached and epochs not in self._reported:
                found.append(Rung(epochs=epochs, accuracy=reached[0]["val_top1"]))
        return found

    def _ending(self, state: Literal["failed", "stopped"], reason: str) -> Ending:
        return Ending(state=state, measures=read_costs(self._folder), reason=reason)


def _end(process: subprocess.Popen[bytes], *, patience: float) -> None:
    """End a process, with time to save its state."""
    if process.poll() is None and patience:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()


def _death(code: int, folder: TrialFolder) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, as the system does where memory runs out"
    if code < 0:
        return f"its process died of {signal.Signals(-code).name}"
    lines = folder.log_path.read_text(encoding="utf-8", errors="replace").split("\n")
    said = next((line for line in reversed(lines) if line.strip()), "nothing")
    return f"its process ended with code {code}, and said: {said}"
