"""What steps cost, from a few that are measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.config import ProgressiveConfig, TrainConfig
from effnet.schedule.progressive import stage_schedule
from effnet.search.schedules.cost import StepCost
from effnet.search.schedules.measuring import fitted, measure_cost
from effnet.training.experiment import prepare_experiment


def shapes():
    schedule = stage_schedule(
        ProgressiveConfig(stages=3, image_size=(16, 32)),
        TrainConfig(batch_size=10),
        train_images=100,
        train_size=32,
    )
    first, middle, last = schedule.stages
    return [first, replace(first, batch_size=20), middle, last]


def test_the_cost_of_a_step_by_hand():
    cost = StepCost(a_step=0.5, an_image=0.01, a_megapixel=100.0)
    first, grown, _, last = shapes()
    assert cost.step(first) == pytest.approx(0.5 + 10 * (0.01 + 100 * 256e-6))
    assert cost.step(grown) == pytest.approx(0.5 + 20 * (0.01 + 100 * 256e-6))
    assert cost.step(last) == pytest.approx(0.5 + 10 * (0.01 + 100 * 1024e-6))


@given(a_step=st.floats(0.001, 1.0), an_image=st.floats(0.001, 0.1), a_megapixel=st.floats(0.1, 1000.0))
def test_what_was_measured_without_error_is_found(a_step, an_image, a_megapixel):
    cost = StepCost(a_step=a_step, an_image=an_image, a_megapixel=a_megapixel)
    found = fitted(shapes(), [cost.step(shape) for shape in shapes()])
    for shape in shapes():
        assert found.step(shape) == pytest.approx(cost.step(shape), rel=1e-6)


def test_nothing_costs_less_than_nothing():
    # Twice the images in less time: no sum of positive parts says so.
    found = fitted(shapes(), [1.0, 0.9, 1.0, 1.1])
    assert min(found.a_step, found.an_image, found.a_megapixel) >= 0


def test_larger_images_take_longer_on_this_device(recipe, digits_network):
    run = replace(recipe, data=replace(recipe.data, source="digits"), model=digits_network)
    cost = measure_cost(prepare_experiment(run), (8,), seconds=0.05)
    assert cost.a_step + cost.an_image + cost.a_megapixel > 0
    assert cost.an_image > 0  # Images have to be prepared.
