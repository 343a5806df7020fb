"""The steps that a plan shows, and what they train with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.config import COUPLED, LearningRateConfig, ProgressiveConfig, TrainConfig
from effnet.schedule.points import key_steps, milestones, rate_of_step, values_at
from effnet.schedule.progressive import stage_schedule


def lay_out(*, epochs=12.0, batch_size=10, train_images=100, **settings):
    train = TrainConfig(epochs=epochs, batch_size=batch_size)
    return stage_schedule(ProgressiveConfig(**settings), train, train_images=train_images, train_size=64)


def test_key_steps_are_the_ends_of_stages_and_of_the_warmup():
    schedule = lay_out(stages=3, image_size=(32, 64))
    config = LearningRateConfig(warmup_epochs=2.0)
    assert key_steps(config, schedule) == [0, 19, 20, 40, 60, 80, 119]
    rates = [rate_of_step(config, schedule, step) for step in (19, 20)]
    assert rates[0] < config.base * 10 / 256 * 0.96


def test_of_many_stages_the_beginnings_are_left_out():
    schedule = lay_out(mode="linear", image_size=(32, 64))
    assert key_steps(LearningRateConfig(warmup_epochs=0.0), schedule) == [0, 60, 119]


@pytest.mark.parametrize(("mode", "ends"), [("staged", {40, 80, 120}), ("linear", {120}), ("random", {120})])
def test_milestones_are_the_ends_of_stages_where_these_are_few(mode, ends):
    config = ProgressiveConfig(mode=mode, stages=3, image_size=(32, 64), redraw_epochs=1.0)
    schedule = stage_schedule(
        config, TrainConfig(epochs=12.0, batch_size=10), train_images=100, train_size=64
    )
    assert milestones(config, schedule) == ends


def test_values_are_those_of_the_stage():
    schedule = lay_out(stages=3, image_size=(32, 64), dropout_rate=(0.1, 0.3))
    config = LearningRateConfig(base=0.256, schedule="constant", warmup_epochs=0.0)
    values = values_at(config, schedule, 40)
    assert (values["step"], values["epoch"], values["stage"], values["image_size"]) == (40, 4.0, 1, 48)
    assert (values["learning_rate"], values["batch_size"]) == (0.01, 10)
    assert values.keys() >= set(COUPLED)


@given(
    epochs=st.floats(0.1, 20),
    batch_size=st.integers(1, 64),
    images=st.integers(1, 500),
    warmup=st.floats(0, 30),
    mode=st.sampled_from(["staged", "linear", "random"]),
)
def test_key_steps_are_steps_of_the_run_and_its_ends_are_among_them(epochs, batch_size, images, warmup, mode):
    schedule = lay_out(epochs=epochs, batch_size=batch_size, train_images=images, mode=mode)
    steps = key_steps(LearningRateConfig(warmup_epochs=warmup), schedule)
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, schedule.total_steps - 1)
