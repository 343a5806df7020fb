"""What came of a study: its candidates in order, the front, the best network, and how the others ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from effnet.arch.io import spec_from_json, to_dict
from effnet.arch.spec import NetworkSpec
from effnet.search.endings import reasons_of, states_of
from effnet.search.front import front, hypervolume
from effnet.search.measures import Measures
from effnet.search.objective import Objective
from effnet.search.records import Trial
from effnet.search.shared import Share, shares
from effnet.search.space import SearchSpace, spec_text

_BEST_SHARE = 0.25
_FEWEST_BEST = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A candidate that was trained as planned."""

    rank: int
    """From 1."""
    trial: Trial
    spec: NetworkSpec
    measures: Measures
    """Has all that the objective needs."""
    scores: tuple[float, ...]
    reward: float | None
    """None where a front is sought."""
    on_front: bool
    """Whether no other one is better in one of the objective's `compared` measures and worse in none."""
    is_backbone: bool
    """Whether it is the network that the search began from."""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as ``leaderboard.json`` has it; its ``spec`` is what `effnet train` takes."""
        return {
            "rank": self.rank,
            "number": self.trial.number,
            "name": self.spec.name,
            **to_dict(self.measures),
            "reward": self.reward,
            "scores": list(self.scores),
            "on_front": self.on_front,
            "is_backbone": self.is_backbone,
            "seconds": self.trial.seconds,
            "rungs": [{"epochs": rung.epochs, "accuracy": rung.accuracy} for rung in self.trial.rungs],
            "stages": spec_text(self.spec),
            "spec": to_dict(self.spec),
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """A study as far as it is."""

    study: str
    """Its name, for people."""
    space: SearchSpace
    objective: Objective
    trials: tuple[Trial, ...]
    """All, in the order of asking."""
    entries: tuple[Entry, ...]
    """The best first. Where a front is sought: what is on it, by the first goal, then the rest."""

    @property
    def winner(self) -> Entry | None:
        """The best; of a front what lies nearest to the best of every goal; None: nothing is complete."""
        if not self.entries or not self.objective.is_front:
            return next(iter(self.entries), None)
        return min(self.front, key=_distance_to_ideal([entry.scores for entry in self.front]))

    @property
    def front(self) -> tuple[Entry, ...]:
        """Those that nothing is better than in every measure of the objective."""
        return tuple(entry for entry in self.entries if entry.on_front)

    @property
    def backbone(self) -> Entry | None:
        """The network that the search began from, if it was trained."""
        return next((entry for entry in self.entries if entry.is_backbone), None)

    @property
    def best(self) -> tuple[Entry, ...]:
        """The best quarter, at least three: what `shared` is about. Where a front is sought, the front."""
        if self.objective.is_front:
            return self.front
        return self.entries[: max(_FEWEST_BEST, round(_BEST_SHARE * len(self.entries)))]

    @property
    def states(self) -> dict[str, int]:
        """How many trials are in each state."""
        return states_of(self.trials)

    @property
    def reasons(self) -> list[tuple[str, str, int]]:
        """Why trials did not end as planned, see `reasons_of`."""
        return reasons_of(self.trials)

    @property
    def volume_beyond_backbone(self) -> float | None:
        """Volume of logarithms between the backbone and the front: 0, where nothing is better in every goal.

        None: no front is sought, or the backbone was not trained.
        """
        if not self.objective.is_front or self.backbone is None:
            return None
        return hypervolume([entry.scores for entry in self.front], self.backbone.scores)

    @cached_property
    def shared(self) -> list[Share]:
        """What the best have in common; empty: nothing is complete."""
        if self.winner is None:
            return []
        # What was stopped was tried too: it says what the best had to be better than.
        tried = [_spec(trial) for trial in self.trials if trial.state in {"done", "stopped"}]
        best = [entry.spec for entry in self.best]
        return shares(self.space, best=best, tried=tried, winner=self.winner.spec)

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known, as ``leaderboard.json`` has it."""
        winner, backbone = self.winner, self.backbone
        return {
            "study": self.study,
            "space": self.space.name,
            "backbone": self.space.backbone.name,
            "objective": str(self.objective),
            "states": self.states,
            "seconds": sum(trial.seconds for trial in self.trials),
            "winner": winner and winner.trial.number,
            "backbone_rank": backbone and backbone.rank,
            "front": [entry.trial.number for entry in self.front],
            "volume_beyond_backbone": self.volume_beyond_backbone,
            "leaderboard": [entry.to_dict() for entry in self.entries],
            "not_complete": [_unfinished(trial) for trial in self.trials if trial.state != "done"],
            "shared": [
                {"stage": share.stage, "field": share.field, "value": share.value}
                | {"best": share.best, "tried": share.tried, "in_winner": share.in_winner}
                for share in self.shared
            ],
        }


def build_report(trials: Sequence[Trial], space: SearchSpace, objective: Objective, *, study: str) -> Report:
    """Put a study's candidates in order.

    Args:
        trials: All, in the order of asking; those that are not done as planned are counted, not ranked.
        space: Of the study.
        objective: Of the study, or another one whose measures were taken: it changes the order alone.
        study: Name, for people.
    """
    done = [(trial, trial.measures) for trial in trials if trial.state == "done"]
    complete = [
        (trial, measures, objective.scores(measures))
        for trial, measures in done
        if measures and all(getattr(measures, name) is not None for name in objective.needs)
    ]
    goals = Objective(kind="pareto", goals=objective.compared)
    on_front = set(front([goals.scores(measures) for _, measures, _ in complete]))
    order = sorted(
        range(len(complete)),
        key=lambda index: (
            objective.is_front and index not in on_front,
            *(-score for score in complete[index][2]),
            complete[index][0].number,
        ),
    )
    backbone = list(space.backbone.blocks())
    entries = []
    for rank, index in enumerate(order, start=1):
        trial, measures, scores = complete[index]
        spec = _spec(trial)
        entries.append(
            Entry(
                rank=rank,
                trial=trial,
                spec=spec,
                measures=measures,
                scores=scores,
                reward=objective.reward(measures),
                on_front=index in on_front,
                is_backbone=list(spec.blocks()) == backbone,
            )
        )
    return Report(study=study, space=space, objective=objective, trials=tuple(trials), entries=tuple(entries))


def _spec(trial: Trial) -> NetworkSpec:
    return spec_from_json(trial.spec, f"trial {trial.number}")


def _unfinished(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "name": _spec(trial).name,
        "state": trial.state,
        "reason": trial.reason,
        "tries": trial.tries,
        "seconds": trial.seconds,
        "measures": trial.measures and to_dict(trial.measures),
        "rungs": [{"epochs": rung.epochs, "accuracy": rung.accuracy} for rung in trial.rungs],
    }


def _distance_to_ideal(scores: Sequence[tuple[float, ...]]) -> Callable[[Entry], float]:
    """Return how far an entry is from the best of every score, each counted in the range that it has."""
    columns = list(zip(*scores, strict=True))
    best, ranges = [max(column) for column in columns], [max(column) - min(column) for column in columns]

    def distance(entry: Entry) -> float:
        missing = [
            (ideal - own) / (extent or 1.0)
            for ideal, own, extent in zip(best, entry.scores, ranges, strict=True)
        ]
        return math.hypot(*missing)

    return distance
