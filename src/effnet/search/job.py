"""The folder of a trial: what its process is told, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic.dataclasses import dataclass

from effnet.arch.io import from_dict
from effnet.arch.spec import SPEC_CONFIG, Count, NetworkSpec
from effnet.errors import UserError
from effnet.search.measures import Measures
from effnet.search.records import End
from effnet.search.settings import SearchSettings

Kind = TypeVar("Kind")


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Job:
    """What a trial's process is to do."""

    settings: SearchSettings
    source: str
    """Where the images are on this machine."""
    threads: Count
    """That prepare images."""
    reference: NetworkSpec | None = None
    """By whose step the candidate's is measured; None: a study of schedules, where none is."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Ending:
    """What came of a trial's process."""

    state: End
    measures: Measures | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialFolder:
    """The files of a trial."""

    path: Path

    @property
    def job_path(self) -> Path:
        """What is to be done."""
        return self.path / "job.json"

    @property
    def spec_path(self) -> Path:
        """The candidate: a network, as ``effnet train --model`` takes it, or a schedule."""
        return self.path / "spec.json"

    @property
    def costs_path(self) -> Path:
        """What it costs on this device; kept, so that it is measured once."""
        return self.path / "costs.json"

    @property
    def ending_path(self) -> Path:
        """What came of it; not there unless the process came to an end of its own."""
        return self.path / "ending.json"

    @property
    def log_path(self) -> Path:
        """What the process printed."""
        return self.path / "log.txt"

    @property
    def run(self) -> Path:
        """The training, as every run."""
        return self.path / "run"


def read_job(folder: TrialFolder) -> Job:
    """Return what is to be done.

    Raises:
        UserError: The folder does not say.
    """
    if (job := _read(Job, folder.job_path)) is None:
        raise UserError(f"{folder.path} holds no trial (it has no {folder.job_path.name})")
    return job


def read_costs(folder: TrialFolder) -> Measures | None:
    """Return what the candidate costs; None: it is not known yet."""
    return _read(Measures, folder.costs_path)


def read_ending(folder: TrialFolder) -> Ending | None:
    """Return what came of the process; None: it did not come to an end of its own."""
    return _read(Ending, folder.ending_path)


def _read(kind: type[Kind], path: Path) -> Kind | None:
    if not path.is_file():
        return None
    return from_dict(kind, json.loads(path.read_text(encoding="utf-8")), str(path))
