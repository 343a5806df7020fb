"""What a strategy is told of a study's trials."""

import math

import pytest

from effnet.search.history import observations, rung_scores
from effnet.search.measures import Measures
from effnet.search.objective import objective_from_text
from effnet.search.records import Rung, Trial

OBJECTIVE = objective_from_text("v1:target=100")


def trial(number, state, *, accuracy=None, macs=100, rung=None, reason=""):
    return Trial(
        number=number, point=(number,), spec="{}", state=state, tries=1, owner="a", claim="",
        lease_until=None, measures=Measures(accuracy=accuracy, macs=macs) if macs else None, reason=reason,
        rungs=(Rung(epochs=1.0, accuracy=rung),) if rung is not None else (), seconds=1.0, asked_at=0.0,
        started_at=0.0, ended_at=1.0,
    )  # fmt: skip


def test_what_is_done_has_the_objectives_score():
    (seen,) = observations([trial(0, "done", accuracy=0.5)], OBJECTIVE)
    assert (seen.number, seen.point, seen.state) == (0, (0,), "done")
    assert seen.scores == pytest.approx((math.log(0.5),))


def test_what_waits_or_runs_is_running_and_what_failed_or_was_rejected_failed():
    trials = [trial(index, state) for index, state in enumerate(["queued", "running", "failed", "rejected"])]
    assert [seen.state for seen in observations(trials, OBJECTIVE)] == [
        "running",
        "running",
        "failed",
        "failed",
    ]


def test_a_stopped_trial_has_the_accuracy_that_it_would_have_come_to():
    done, stopped = trial(0, "done", accuracy=0.6, rung=0.4), trial(1, "stopped", rung=0.2)
    _, seen = observations([done, stopped], OBJECTIVE)
    assert seen.state == "done"
    assert seen.scores == pytest.approx((math.log(0.3),))


def test_a_stopped_trial_without_an_estimate_has_failed():
    assert observations([trial(0, "stopped", rung=0.2)], OBJECTIVE)[0].state == "failed"


def test_what_lacks_a_measure_of_the_objective_has_failed():
    assert observations([trial(0, "done", accuracy=0.5, macs=None)], OBJECTIVE)[0].state == "failed"


def test_scores_at_a_rung_are_of_those_that_came_there_and_whose_costs_are_known():
    trials = [
        trial(0, "done", accuracy=0.9, rung=0.4),
        trial(1, "done", accuracy=0.9),
        trial(2, "running", rung=0.3, macs=None),
    ]
    assert rung_scores(trials, OBJECTIVE, 1.0) == {0: pytest.approx((math.log(0.4),))}
    assert rung_scores(trials, OBJECTIVE, 2.0) == {}
