"""Who is left behind at a rung, and what stopped candidates would have come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.search.halving import full_accuracy, is_left_behind


def test_the_best_third_goes_on():
    others = [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)]
    assert not is_left_behind((0.45,), others, 3)
    assert is_left_behind((0.35,), others, 3)


def test_as_many_as_eta_are_needed_for_a_comparison():
    assert not is_left_behind((0.1,), [(0.9,)], 3)
    assert is_left_behind((0.1,), [(0.9,), (0.8,)], 3)


def test_of_several_scores_only_who_is_no_better_in_any_is_behind():
    others = [(0.9, -1.0), (0.8, -2.0)]
    assert not is_left_behind((0.1, -0.5), others, 3)
    assert is_left_behind((0.1, -3.0), others, 3)


def test_equals_do_not_leave_each_other_behind():
    assert not is_left_behind((0.5,), [(0.5,)] * 8, 3)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20), st.integers(2, 4))
def test_the_best_of_all_always_goes_on(scores, eta):
    assert not is_left_behind((max(scores),), [(score,) for score in scores], eta)


def test_a_line_through_what_finished_is_extended():
    finished = [({1.0: start}, 0.2 + 0.5 * start) for start in (0.2, 0.3, 0.4, 0.5)]
    assert full_accuracy({1.0: 0.35}, finished) == pytest.approx(0.375)


def test_few_that_finished_give_their_mean_factor():
    assert full_accuracy({1.0: 0.2}, [({1.0: 0.3}, 0.45), ({1.0: 0.1}, 0.15)]) == pytest.approx(0.3)


def test_nothing_is_estimated_of_what_was_not_seen():
    assert full_accuracy({}, [({1.0: 0.3}, 0.4)]) is None
    assert full_accuracy({2.0: 0.3}, [({1.0: 0.3}, 0.4)]) is None


@given(
    st.floats(0.0, 1.0),
    st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)), min_size=1, max_size=9),
)
def test_an_estimate_is_an_accuracy_and_no_less_than_was_seen(here, pairs):
    estimate = full_accuracy({1.0: here}, [({1.0: start}, end) for start, end in pairs])
    assert estimate is not None
    assert here <= estimate <= 1.0
