"""Steps where chance finds nothing: from the anchors of a domain that is nearly all excluded."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from effnet.search.moves import sample, wander
from effnet.search.points import Anchored, Observation, Variable
from effnet.search.proposing import propose
from effnet.search.strategies import strategy_named


@dataclass(frozen=True)
class Corner:
    """Of 10 ** 20 points only those whose indices sum to 3 at most are feasible."""

    variables = tuple(Variable(name=f"x{index}", values=tuple(range(10))) for index in range(20))

    def canonical(self, point):
        return point

    def is_feasible(self, point):
        return sum(point) <= 3


class KnownCorner(Corner):
    anchors = ((0,) * 20,)


def test_wandering_finds_what_chance_does_not():
    assert not any(Corner().is_feasible(sample(Corner(), Random(seed))) for seed in range(100))
    found = {wander(Corner(), (0,) * 20, Random(seed), 60) for seed in range(20)}
    assert len(found) > 10
    assert all(map(Corner().is_feasible, found))


def test_wandering_depends_on_its_draws_alone():
    assert wander(Corner(), (0,) * 20, Random(1), 60) == wander(Corner(), (0,) * 20, Random(1), 60)


def test_what_chance_does_not_find_is_proposed_from_the_anchors_each_once():
    assert isinstance(KnownCorner(), Anchored)
    points = []
    for number in range(20):
        history = [Observation(number=k, point=point, state="running") for k, point in enumerate(points)]
        points.append(propose(strategy_named("random"), KnownCorner(), history, seed=0, number=number))
    assert all(map(KnownCorner().is_feasible, points))
    assert len(set(points)) == 20
