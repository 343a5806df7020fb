"""Predictions against devices whose speeds are made up."""

from __future__ import annotations

from random import Random

import pytest

from effnet.search.costs import step_parts
from effnet.search.hopeless import why_hopeless
from effnet.search.measures import Measures
from effnet.search.moves import sample
from effnet.search.objective import objective_from_text
from effnet.search.predictor import Measured, StepTimePredictor, fit
from effnet.search.rules import load_space

SPACE = load_space("small")
RATES = (1e-3, 1e-4, 1e-9, 3e-11, 1e-10, 8e-10, 1e-9, 2e-9, 3e-9)
"""Seconds for each part, of a device that is slow at depthwise convolutions."""


def cost(spec) -> float:
    return sum(rate * part for rate, part in zip(RATES, step_parts(spec, 32, 16), strict=True))


def measured(count: int, seed: int, *, noise: float = 0.0, stalled: float = 0.0) -> list[Measured]:
    draws = Random(seed)
    specs = [SPACE.spec(sample(SPACE, draws)) for _ in range(count)]
    return [
        Measured(
            spec=spec,
            cost=cost(spec)
            * draws.lognormvariate(0.0, noise)
            * (draws.uniform(2.0, 10.0) if draws.random() < stalled else 1.0),
        )
        for spec in specs
    ]


def errors(predictor: StepTimePredictor) -> list[float]:
    return sorted(abs(predictor.predict(one.spec) / one.cost - 1) for one in measured(40, seed=99))


def fitted(known: list[Measured]) -> StepTimePredictor:
    predictor = fit(known, 32, 16)
    assert predictor is not None
    return predictor


def test_what_is_exact_is_learnt_from_twenty():
    assert errors(fitted(measured(20, seed=1)))[-1] < 0.02


def test_noise_and_stalled_measurements_are_no_obstacle():
    predictor = fitted(measured(60, seed=1, noise=0.03, stalled=0.05))
    assert errors(predictor)[36] < 0.05  # Nine of ten.


def test_the_error_told_is_that_of_networks_that_were_not_seen():
    predictor = fitted(measured(60, seed=1, noise=0.1))
    fresh = sorted(
        abs(predictor.predict(one.spec) / one.cost - 1) for one in measured(200, seed=5, noise=0.1)
    )
    assert predictor.error == pytest.approx(fresh[180], rel=0.3)


def test_a_larger_network_than_any_that_was_seen_is_predicted():
    large = SPACE.spec(SPACE.canonical(tuple(len(variable.values) - 1 for variable in SPACE.variables)))
    assert fitted(measured(30, seed=1)).predict(large) == pytest.approx(cost(large), rel=0.05)


def test_the_unit_is_that_of_the_measurements():
    known = measured(30, seed=1)
    thousand = [Measured(spec=one.spec, cost=1e3 * one.cost) for one in known]
    spec = known[0].spec
    assert fitted(thousand).predict(spec) == pytest.approx(1e3 * fitted(known).predict(spec))


def test_few_measurements_give_no_predictor():
    assert fit(measured(9, seed=1), 32, 16) is None
    assert fit(measured(10, seed=1), 32, 16) is not None


class Always(StepTimePredictor):
    """Says 2 for everything, and may be 25 % off."""

    def predict(self, spec):
        return 2.0


SLOW = Always(image_size=32, images=16, rates=(), error=0.25)
SPEC = SPACE.backbone


def judged(text: str, *, done_ms: float, best: float = 0.7, params: int = 1000, known=None, **bounds) -> str:
    """Judge a candidate of 16 to 25 ms beside ten of ``done_ms`` with accuracies of 0.6 to ``best``."""
    done = [
        Measures(accuracy=0.6 if number < 9 else best, step_ms=done_ms, params=1000) for number in range(10)
    ]
    known = Measures(params=params) if known is None else known
    objective = objective_from_text(text)
    return why_hopeless(SLOW, SPEC, known, done, objective, reference_ms=10.0, **bounds)


def test_what_is_over_the_bound_at_best_is_hopeless():
    reason = judged("v2", done_ms=20.0, max_step_ms=15.0)
    assert reason == "its step takes at least 16 ms by prediction, and 15 ms are allowed"
    assert judged("v2", done_ms=20.0, max_step_ms=17.0) == ""


def test_what_a_trained_candidate_beats_in_any_case_is_hopeless():
    # Hoped for is 0.8, which is worth a factor of (0.8 / 0.7) ** (1 / 0.07) = 6.7 in time: 16 / 6.7 = 2.4 ms.
    assert "too long even at an accuracy of 0.800" in judged("v2", done_ms=2.3)
    assert judged("v2", done_ms=2.5) == ""


def test_a_front_has_room_for_what_may_be_more_accurate():
    assert judged("pareto:accuracy,step_ms", done_ms=2.3) == ""
    assert judged("pareto:accuracy,step_ms", done_ms=2.3, best=1.0) != ""
    assert judged("pareto:step_ms,params", done_ms=2.3, params=1001) != ""


def test_where_a_time_is_wanted_faster_is_no_better():
    assert judged("absolute:cost=step_ms,target=20", done_ms=2.3) == ""
    assert judged("absolute:cost=step_ms,target=2.3,beta=-0.07", done_ms=2.3) != ""


def test_too_little_is_known_to_judge():
    assert judged("v1", done_ms=2.3) == ""
    assert judged("v2", done_ms=2.3, known=Measures()) == ""
    few = [Measures(accuracy=0.9, step_ms=0.1, params=1)] * 9
    assert (
        why_hopeless(SLOW, SPEC, Measures(params=1000), few, objective_from_text("v2"), reference_ms=10.0)
        == ""
    )
