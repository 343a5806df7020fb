"""A search space whose truth is known: additive in its choices and pairs of them, with a bound."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from effnet.search.points import Observation, Variable
from effnet.search.proposing import propose


class Planted:
    """Reward = sum of single choices + of pairs; those whose indices sum to over ``bound`` are not there.

    Where the first variable is 0 the last one has no meaning.
    """

    def __init__(self, sizes=(3, 2, 3, 2, 3, 2, 3), seed=0, bound=None):
        draws = Random(seed)
        self.variables = tuple(Variable(f"v{index}", tuple(range(size))) for index, size in enumerate(sizes))
        values = [(index, value) for index, size in enumerate(sizes) for value in range(size)]
        self.single = {key: draws.gauss(0.0, 1.0) for key in values}
        self.pair = {key: draws.gauss(0.0, 0.3) for key in itertools.combinations(values, 2)}
        self.bound = bound

    def canonical(self, point):
        return (*point[:-1], 0) if point[0] == 0 else point

    def is_feasible(self, point):
        return self.bound is None or sum(point) <= self.bound

    def points(self):
        grid = itertools.product(*(range(len(variable.values)) for variable in self.variables))
        return [point for point in grid if self.canonical(point) == point and self.is_feasible(point)]

    def truth(self, point):
        chosen = list(enumerate(point))
        return sum(self.single[key] for key in chosen) + sum(
            self.pair[key] for key in itertools.combinations(chosen, 2)
        )

    def best(self):
        return max(map(self.truth, self.points()))


def _observe(domain, number, point, *, scores=1, noise=0.1):
    """Every tenth candidate fails; the second score of a front is a cost that the first one needs."""
    if number % 10 == 9:
        return Observation(number=number, point=point, state="failed")
    value = domain.truth(point) + Random(f"{number}/{point}").gauss(0.0, noise)
    both = (value, float(-sum(point)))
    return Observation(number=number, point=point, state="done", scores=both[:scores])


@pytest.fixture
def planted():
    return Planted


@pytest.fixture
def search():
    return _search


def _search(strategy, domain, asks, *, seed=0, history=(), scores=1, noise=0.1):
    """Ask so often in all, each candidate done before the next ask; return the history."""
    seen = list(history)
    for number in range(len(seen), asks):
        point = propose(strategy, domain, seen, seed, number)
        seen.append(_observe(domain, number, point, scores=scores, noise=noise))
    return seen
