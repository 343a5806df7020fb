"""Pareto fronts and the volume under them, against definitions and counting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.search.front import dominates, front, hypervolume

GRID = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)


def test_a_front_by_hand():
    assert front([(1, 1), (2, 0), (0, 2), (1, 0), (1, 1)]) == [0, 1, 2, 4]


@given(GRID)
def test_everything_off_the_front_is_dominated_by_something_on_it(scores):
    on = front(scores)
    assert on
    for index, own in enumerate(scores):
        assert (index not in on) == any(dominates(scores[other], own) for other in on)


def test_a_volume_by_hand():
    assert hypervolume([(3, 1), (1, 3), (2, 2)], (0, 0)) == 6
    assert hypervolume([(3,), (1,)], (1,)) == 2
    assert hypervolume([(3, -1)], (0, 0)) == 0
    assert hypervolume([], (0, 0)) == 0


@given(GRID)
def test_a_volume_is_that_of_the_cells_that_are_dominated(scores):
    cells = {(x, y, z) for own in scores for x in range(own[0]) for y in range(own[1]) for z in range(own[2])}
    assert hypervolume(scores, (0, 0, 0)) == pytest.approx(len(cells))
    on = [scores[index] for index in front(scores)]
    assert hypervolume(on, (0, 0, 0)) == pytest.approx(len(cells))
