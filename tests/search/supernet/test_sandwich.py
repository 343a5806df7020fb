"""Which networks a step trains."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from effnet.errors import UserError
from effnet.search.space import SearchSpace
from effnet.search.supernet.sandwich import random_point, sandwich


def test_a_step_trains_the_largest_first_and_the_smallest_last(space):
    points = sandwich(space, Random(0), between=3)
    assert len(points) == 5
    largest, smallest = space.spec(points[0]), space.spec(points[-1])
    assert [(s.kernel_size, s.expand_ratio, s.repeats, s.channels) for s in largest.stages] == [
        (5, 3, 2, 12),
        (5, 3, 2, 8),
    ]
    # The smallest leaves out the last stage.
    assert [(s.kernel_size, s.expand_ratio, s.repeats, s.channels) for s in smallest.stages] == [(3, 1, 1, 8)]


def test_what_has_no_size_is_drawn_anew_for_every_step(space):
    ends = [sandwich(space, Random(seed), between=0) for seed in range(20)]
    for place in (0, -1):
        assert {space.spec(points[place]).stages[0].operation for points in ends} == {
            "mbconv",
            "fused_mbconv",
        }
    assert {space.spec(points[0]).stages[1].residual for points in ends} == {True, False}


def test_the_same_draws_give_the_same_networks(space):
    assert sandwich(space, Random(5), between=2) == sandwich(space, Random(5), between=2)
    assert sandwich(space, Random(5), between=2) != sandwich(space, Random(6), between=2)


@dataclass(frozen=True)
class Bounded:
    """A space of which few networks, or none, are feasible."""

    space: SearchSpace
    kernels: tuple[int, ...]

    @property
    def variables(self):
        return self.space.variables

    def canonical(self, point):
        return self.space.canonical(point)

    def spec(self, point):
        return self.space.spec(point)

    def is_feasible(self, point):
        return bool(self.kernels) and self.space.spec(point).stages[0].kernel_size in self.kernels


def test_random_networks_are_feasible(space):
    bounded, draws = Bounded(space, (5,)), Random(0)
    assert {space.spec(random_point(bounded, draws)).stages[0].kernel_size for _ in range(10)} == {5}


def test_a_space_without_a_feasible_network_is_an_error(space):
    with pytest.raises(UserError) as caught:
        random_point(Bounded(space, ()), Random(0))
    assert str(caught.value) == (
        "none of 10,000 networks of the space is within its bounds; give it more room"
    )
