"""A study of schedules: their search, and then the finalists once more with other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from effnet.errors import UserError
from effnet.search.history import has_all, observations
from effnet.search.ledger import Ledger
from effnet.search.points import Point, Strategy, Variable
from effnet.search.proposing import propose
from effnet.search.records import Candidate, Trial
from effnet.search.schedules.space import ScheduleSpace
from effnet.search.settings import SearchSettings
from effnet.search.strategies import strategy_named
from effnet.search.study import check_wanted
from effnet.search.worker import EnoughTrialsError

FINALISTS = 3
"""Best schedules that are trained with other seeds, besides the paper's and the fixed size."""


@dataclass(frozen=True, kw_only=True)
class ScheduleStudy:
    """A study of schedules that is open.

    A trial's point is a point of the space, and behind it the number of the seed.
    """

    ledger: Ledger
    settings: SearchSettings
    space: ScheduleSpace
    folder: Path
    """Of the files of this machine."""
    source: str
    """Where the images are on this machine."""
    reference: None = None
    """Steps are not measured by those of a network."""

    def __enter__(self) -> ScheduleStudy:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.ledger.close()

    @property
    def point_variables(self) -> tuple[Variable, ...]:
        """What the indices of a trial's point mean."""
        return (*self.space.variables, Variable(name="seed", values=tuple(range(self.space.seeds))))

    def candidate(self, point: Point, seed: int = 0) -> Candidate:
        """Return a point as the ledger has it."""
        assert self.settings.step_cost is not None, "steps are measured when a study is begun"
        schedule = self.space.schedule(point, self.settings.run, self.settings.step_cost, seed)
        return Candidate(point=(*point, seed), spec=schedule.to_json())

    def queue_first(self) -> None:
        """Put the paper's schedule, the fixed size and Composer's before all others."""
        self.ledger.queue([self.candidate(point) for point in self.space.first])

    @cached_property
    def strategy(self) -> Strategy:
        """What proposes; it keeps work between asks."""
        return strategy_named(self.settings.strategy)

    def next(self, history: Sequence[Trial], wanted: int) -> Candidate:
        """Return what the strategy proposes, and once there are enough, a finalist with another seed.

        Raises:
            EnoughTrialsError: Nothing is left to try.
        """
        searched = [trial for trial in history if trial.point[-1] == 0]
        try:
            check_wanted(searched, wanted)
            return self._proposed(searched)
        except EnoughTrialsError as end:
            if all(trial.has_ended for trial in searched) and (repeat := self._repeat(history)):
                return repeat
            raise EnoughTrialsError(str(end)) from None

    def why_hopeless(self, trial: Trial) -> str:
        """Nothing is known of a schedule before it was tried."""
        return ""

    def _proposed(self, searched: Sequence[Trial]) -> Candidate:
        seen = observations(searched, self.settings.objective)
        known = [replace(each, point=each.point[:-1]) for each in seen]
        try:
            return self.candidate(
                propose(self.strategy, self.space, known, self.settings.seed, len(searched))
            )
        except UserError as error:
            raise EnoughTrialsError(str(error)) from error

    def _repeat(self, history: Sequence[Trial]) -> Candidate | None:
        tried = {trial.point for trial in history}
        for seed in range(1, self.space.seeds):
            for point in self.finalists(history):
                if (*point, seed) not in tried:
                    return self.candidate(point, seed)
        return None

    def finalists(self, history: Sequence[Trial]) -> tuple[Point, ...]:
        """Return the paper's schedule, the fixed size, and the best of the others by the search's seed."""
        ended = [
            (self.settings.objective.scores(trial.measures), trial.point[:-1])
            for trial in history
            if trial.point[-1] == 0
            and trial.state == "done"
            and trial.measures
            and has_all(trial.measures, self.settings.objective)
        ]
        known = [self.space.paper, self.space.fixed]
        best = [point for _, point in sorted(ended, reverse=True) if point not in known]
        trained = {point for _, point in ended}
        return (*(point for point in known if point in trained), *best[:FINALISTS])
