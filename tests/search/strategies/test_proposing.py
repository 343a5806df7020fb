from dataclasses import dataclass
from random import Random

import pytest

from effnet.errors import UserError
from effnet.search.points import Observation, Variable
from effnet.search.proposing import propose, weighed
from effnet.search.strategies import candidates, strategy_named


@dataclass
class Stubborn:
    """Asks for the same point whatever is known, and notes what it was told."""

    point: tuple[int, ...]
    takes_fronts: bool = False
    told: list | None = None

    def ask(self, domain, history, draws):
        self.told = list(history)
        return self.point


def _done(number, point, *scores):
    return Observation(number=number, point=point, state="done", scores=scores)


def test_what_was_tried_is_changed_a_little(planted):
    domain, point = planted(), (1, 0, 1, 0, 1, 0, 1)
    found = propose(Stubborn(point), domain, [_done(0, point, 1.0)], 0, 1)
    assert sum(a != b for a, b in zip(found, point, strict=True)) >= 1
    assert found in domain.points()


def test_what_means_the_same_is_asked_for_by_one_name(planted):
    assert propose(Stubborn((0, 1, 1, 0, 1, 0, 2)), planted(), [], 0, 0) == (0, 1, 1, 0, 1, 0, 0)


def test_what_is_over_a_bound_is_replaced(planted):
    domain = planted(bound=4)
    assert domain.is_feasible(propose(Stubborn((2, 1, 2, 1, 2, 1, 2)), domain, [], 0, 0))


def test_several_scores_become_one_by_weights_that_change_from_ask_to_ask(planted):
    domain, asker = planted(), Stubborn((1, 0, 1, 0, 1, 0, 1))
    history = [_done(0, (0, 0, 0, 0, 0, 0, 0), 3.0, -9.0), _done(1, (1, 0, 0, 0, 0, 0, 0), 1.0, -2.0)]
    winners = set()
    for number in range(2, 30):
        propose(asker, domain, history, 0, number)
        first, second = (seen.scores for seen in asker.told)
        assert len(first) == len(second) == 1
        winners.add(first > second)
    assert winners == {True, False}


def test_a_strategy_for_fronts_is_told_all_scores(planted):
    history, asker = [_done(0, (0,) * 7, 3.0, -9.0)], Stubborn((1,) * 7, takes_fronts=True)
    propose(asker, planted(), history, 0, 1)
    assert asker.told == history


def test_weighing_keeps_what_dominates_above():
    history = [
        _done(0, (0,), 3.0, -1.0),
        _done(1, (1,), 2.0, -2.0),
        Observation(number=2, point=(2,), state="failed"),
    ]
    for seed in range(20):
        better, worse, failed = weighed(history, Random(seed))
        assert better.scores > worse.scores
        assert failed is history[2]


def test_a_point_of_a_bent_front_that_no_sum_would_choose_is_preferred_by_some_weights():
    history = [_done(0, (0,), 0.0, 1.0), _done(1, (1,), 0.4, 0.4), _done(2, (2,), 1.0, 0.0)]
    assert any(
        max(weighed(history, Random(seed)), key=lambda seen: seen.scores).number == 1 for seed in range(50)
    )


def test_a_space_too_large_to_count_with_nothing_feasible_says_so(planted, monkeypatch):
    monkeypatch.setattr(candidates, "_TRIES", 50)
    domain = planted(bound=-1)
    domain.variables = tuple(Variable(f"v{index}", (0, 1)) for index in range(21))
    with pytest.raises(
        UserError, match=r"^found nothing untried among some of 2\.1e\+06 points; loosen the bounds"
    ):
        propose(strategy_named("random"), domain, [], 0, 0)
