"""What makes the results of a study comparable: recorded when it is begun, the same for all who join it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from pydantic.dataclasses import dataclass

from effnet.arch.io import from_dict, to_dict
from effnet.arch.spec import SPEC_CONFIG
from effnet.config import Config
from effnet.config.ranges import NonNegative, NonNegativeInt, Positive, PositiveInt, Seed
from effnet.data.images import DataSplit
from effnet.search.bounds import Bounds
from effnet.search.objective import Objective
from effnet.search.schedules.cost import StepCost

NO_SOURCE = "the study's images"
"""Stands for ``data.source`` in a study, because images may lie elsewhere on each machine."""
_LATER = ("reference_ms", "reference_latency_ms", "step_images", "step_cost")
"""What is measured when a study is begun, and not asked for."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class SearchSettings:
    """A search but for its space, which is recorded beside it."""

    run: Config
    """Of each candidate's training; its network is replaced by the candidate, its source by the images."""
    images: str
    """Fingerprint of the images' classes and labels, see `fingerprint`."""
    objective: Objective
    bounds: Bounds
    strategy: str
    """Name of what proposes candidates."""
    seed: Seed = 0
    """Of the proposals; that of the trainings is ``run.train.seed``, the same for all candidates."""
    eta: NonNegativeInt = 3
    """Of successive halving (1603.06560, asynchronous as 1810.05934): at every rung one of so many goes on.
    0 or 1: all are trained to the end."""
    rungs: NonNegativeInt = 1
    """How often a candidate may be stopped: after 1 / ``eta`` of its epochs, before that after 1 / ``eta``
    of those, and so on."""
    trial_minutes: NonNegative = 0.0
    """A candidate that takes longer has failed; 0: any time."""
    step_seconds: Positive = 4.0
    """Spent on measuring the training step of each candidate."""
    step_images: PositiveInt = 1
    """In the steps that are timed, as chosen for the reference when the study was begun."""
    reference_ms: Positive | None = None
    """Training step of the reference, the backbone, when the study was begun; by it all steps are scaled."""
    reference_latency_ms: Positive | None = None
    """The same of its forward pass, where that matters."""
    step_cost: StepCost | None = None
    """Of a study of schedules: what their steps take on the device of whoever began it."""

    @property
    def needs_latency(self) -> bool:
        """Whether the forward pass of candidates is measured."""
        return "latency_ms" in self.objective.needs or self.bounds.max_latency_ms is not None

    @property
    def rung_epochs(self) -> tuple[float, ...]:
        """After how many epochs candidates are compared, ascending, the end not among them."""
        if self.eta < 2:
            return ()
        return tuple(self.run.train.epochs / self.eta**rung for rung in range(self.rungs, 0, -1))

    def asked(self) -> dict[str, Any]:
        """Return what must be the same for all, as plain data."""
        return {name: value for name, value in self.to_dict().items() if name not in _LATER}

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data for JSON."""
        return json.loads(json.dumps(to_dict(self)))

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str) -> SearchSettings:
        """Return the settings that a study has recorded.

        Raises:
            UserError: They are not valid, as those of another version.
        """
        return from_dict(cls, data, where)

    def with_run(self, run: Config) -> SearchSettings:
        """Return the same search with another training, without what belongs to one machine."""
        return replace(self, run=without_place(run))


def without_place(run: Config) -> Config:
    """Return a configuration without what one machine, and no result, depends on."""
    return replace(run, data=replace(run.data, source=NO_SOURCE, workers=0))


def fingerprint(images: DataSplit) -> str:
    """Return 16 hexadecimal digits of the classes and the labels to train and to compare on."""
    digest = hashlib.sha256(json.dumps(images.class_names).encode())
    for part in (images.train, images.val):
        digest.update(f"{len(part)}:".encode())
        digest.update(part.labels.tobytes())
    return digest.hexdigest()[:16]
