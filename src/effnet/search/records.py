"""What a ledger says of a study: its trials, how they ended, and what came too late."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from effnet.search.measures import Measures
from effnet.search.points import Point

End: TypeAlias = Literal["done", "failed", "rejected", "stopped"]
"""``done``: measured as planned; ``failed``: could not be; ``rejected``: known to be hopeless before any
training; ``stopped``: trained less than planned, because others were better by then."""
State: TypeAlias = Literal["queued", "running", "done", "failed", "rejected", "stopped"]
"""What becomes of a trial: ``queued`` and ``running`` ones have not ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What to try."""

    point: Point
    """Canonical; no two trials of a study have the same."""
    spec: str
    """The network, as `effnet.arch.io.spec_to_json` writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """Accuracy on the way, by which poor candidates are known."""

    epochs: float
    """Trained so far."""
    accuracy: float
    """Top-1 on the minival, as a fraction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A row of the ledger, as it was when it was read.

    Times are seconds since 1970 by the database's clock.
    """

    number: int
    """Place in the order of asking, from 0."""
    point: Point
    spec: str
    """The network as JSON."""
    state: State
    tries: int
    """How often it was begun, by whomever; what was handed back does not count."""
    owner: str
    """Worker that has or last had it; empty while nobody has had it."""
    claim: str
    """Unlike that of any other try: only who knows it can report."""
    lease_until: float | None
    """When others may take it over; None unless running."""
    measures: Measures | None
    reason: str
    """Why it failed, was rejected or stopped; else empty."""
    rungs: tuple[Rung, ...]
    """In ascending order of epochs."""
    seconds: float
    """From its beginning to its end, of the try that ended it and of those that were handed back."""
    asked_at: float
    started_at: float | None
    ended_at: float | None

    @property
    def candidate(self) -> Candidate:
        """What is tried."""
        return Candidate(point=self.point, spec=self.spec)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state not in {"queued", "running"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a try ended, as its worker reports it."""

    number: int
    claim: str
    owner: str
    state: End
    measures: Measures | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LateOutcome:
    """An outcome of a try that another worker had taken over by then. It does not count, and is not lost."""

    outcome: Outcome
    received_at: float
