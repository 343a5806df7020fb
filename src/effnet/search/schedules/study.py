"""A study of schedules: their search, and then the finalists once more with other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from effnet.errors import UserError
from effnet.search.history import observations
from effnet.search.ledger import Ledger
from effnet.search.points import Observation, Point, Strategy, Variable
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
        searched = _by_own_seed(history)
        try:
            check_wanted(searched, wanted)
            return self._proposed(searched)
        except (EnoughTrialsError, UserError) as end:
            if all(trial.has_ended for trial in searched) and (repeat := self._repeat(history)):
                return repeat
            raise EnoughTrialsError(str(end)) from end

    def why_hopeless(self, trial: Trial) -> str:
        """Nothing is known of a schedule before it was tried."""
        return ""

    def _proposed(self, searched: Sequence[Trial]) -> Candidate:
        known = self._known(searched)
        return self.candidate(propose(self.strategy, self.space, known, self.settings.seed, len(searched)))

    def _repeat(self, history: Sequence[Trial]) -> Candidate | None:
        tried = {trial.point for trial in history}
        for seed in range(1, self.space.seeds):
            for point in self.finalists(history):
                if (*point, seed) not in tried:
                    return self.candidate(point, seed)
        return None

    def finalists(self, history: Sequence[Trial]) -> tuple[Point, ...]:
        """Return the paper's schedule, the fixed size, and the best of the others by the search's seed."""
        known = self._known(_by_own_seed(history))
        scores = {seen.point: seen.scores for seen in known if seen.state == "done"}
        compared = [self.space.paper, self.space.fixed]
        best = sorted(scores.keys() - compared, key=lambda point: (scores[point], point), reverse=True)
        return (*(point for point in compared if point in scores), *best[:FINALISTS])

    def _known(self, searched: Sequence[Trial]) -> list[Observation]:
        """Return what is known of the schedules of the search, as points of the space."""
        seen = observations(searched, self.settings.objective)
        return [replace(each, point=each.point[:-1]) for each in seen]


def _by_own_seed(history: Sequence[Trial]) -> list[Trial]:
    """Return the trials of the search itself, those of finalists' other seeds left out."""
    return [trial for trial in history if trial.point[-1] == 0]
