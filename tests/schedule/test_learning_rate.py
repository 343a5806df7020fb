"""The learning rate against values of the released code, and what holds for every schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.config import LearningRateConfig
from effnet.recipes import load_recipe
from effnet.schedule.learning_rate import decay_factor, learning_rate, peak_rate

STEPS_PER_EPOCH = 1_256_144 / 4096
TOTAL_STEPS = 107_336
WARMUP_STEPS = 5 * STEPS_PER_EPOCH


def released(step):
    return learning_rate(
        load_recipe("v2-s.release").learning_rate,
        step,
        steps_per_epoch=STEPS_PER_EPOCH,
        total_steps=TOTAL_STEPS,
        batch_size=4096,
    )


def simple(step, *, epochs=10.0, steps_per_epoch=1.0, **changes):
    """Return a rate whose peak is 1, without warm-up unless given."""
    config = LearningRateConfig(**{"base": 1.0, "warmup_epochs": 0.0, **changes})
    total_steps = epochs * steps_per_epoch
    return learning_rate(
        config, step, steps_per_epoch=steps_per_epoch, total_steps=total_steps, batch_size=256
    )


def test_imagenet_warms_up_from_0_to_0_256():
    assert released(0) == 0.0
    assert released(WARMUP_STEPS / 2) == pytest.approx(0.128)
    assert released(WARMUP_STEPS - 1e-6) == pytest.approx(0.256)


def test_imagenet_falls_to_the_schedule_behind_the_warmup():
    assert released(WARMUP_STEPS) == pytest.approx(0.256 * 0.97**2)
    assert released(1534) == pytest.approx(0.2409, abs=5e-5)


def test_imagenet_ends_after_145_decays():
    assert released(TOTAL_STEPS - 1) == pytest.approx(0.256 * 0.97**145)
    assert released(TOTAL_STEPS - 1) == pytest.approx(0.0031, abs=5e-5)


def test_imagenet_decays_every_2_4_epochs():
    drop = 10 * 2.4 * STEPS_PER_EPOCH
    assert released(drop - 1e-3) == pytest.approx(0.256 * 0.97**9)
    assert released(drop + 1e-3) == pytest.approx(0.256 * 0.97**10)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (4, 0.6545), (6, 0.3455), (10, 0.0)])
def test_cosine_golden_values(step, expected):
    assert simple(step, schedule="cosine") == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (25, 0.5), (70, 0.125)])
def test_exponential_golden_values(step, expected):
    assert simple(step, steps_per_epoch=10.0, decay_epochs=2.0, decay_rate=0.5) == expected


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "linear", "constant"])
@pytest.mark.parametrize(("step", "expected"), [(0, 0.0), (5, 0.25), (10, 0.5), (19, 0.95)])
def test_warmup_golden_values(schedule, step, expected):
    rate = simple(step, steps_per_epoch=10.0, warmup_epochs=2.0, schedule=schedule)
    assert rate == pytest.approx(expected)


def test_constant_stays_at_the_peak():
    assert {simple(step, schedule="constant") for step in range(20)} == {1.0}


def test_the_rate_never_falls_below_the_minimum_but_in_the_warmup():
    changes = {"schedule": "cosine", "minimum": 0.2, "warmup_epochs": 1.0, "steps_per_epoch": 10.0}
    assert simple(1, **changes) == pytest.approx(0.1)
    assert simple(99, **changes) == 0.2


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (3, 0.7), (5, 0.5), (10, 0.0), (12, 0.0)])
def test_linear_golden_values(step, expected):
    assert simple(step, schedule="linear") == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # 10 epochs of 10 steps with 2 epochs of warm-up: step 60 is half of the 80 steps behind it.
        ({"schedule": "cosine"}, 0.5),
        ({"schedule": "linear"}, 0.5),
        ({"schedule": "exponential", "decay_epochs": 1.0, "decay_rate": 0.5}, 0.0625),
        ({"schedule": "constant"}, 1.0),
    ],
)
def test_a_schedule_counted_from_the_warmup_begins_at_the_peak(changes, expected):
    changes |= {"counted_from": "warmup", "warmup_epochs": 2.0, "steps_per_epoch": 10.0}
    assert simple(19, **changes) == pytest.approx(0.95)
    assert simple(20, **changes) == pytest.approx(1.0)
    assert simple(60, **changes) == pytest.approx(expected)


def test_a_run_that_is_all_warmup_has_no_schedule_behind_it():
    changes = {"schedule": "cosine", "counted_from": "warmup", "warmup_epochs": 10.0}
    assert simple(9, **changes) == pytest.approx(0.9)
    assert simple(10, **changes) == 0.0


@pytest.mark.parametrize(("scaling", "expected"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_the_peak_grows_with_a_batch_four_times_as_large(scaling, expected):
    config = LearningRateConfig(base=1.0, batch_scaling=scaling, schedule="constant", warmup_epochs=0.0)
    rates = [
        learning_rate(config, 0, steps_per_epoch=1.0, total_steps=10.0, batch_size=size)
        for size in (256, 1024)
    ]
    assert rates == [1.0, expected]


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 1.0), ("sqrt", 2.0), ("none", 4.0)])
def test_weight_decay_makes_up_for_a_rate_that_grows_less_than_the_batch(scaling, factor):
    config = LearningRateConfig(batch_scaling=scaling, base_batch_size=32)
    assert decay_factor(config, 256, 64) == pytest.approx(factor)
    assert decay_factor(config, 64, 64) == 1.0


@given(scaling=st.sampled_from(["linear", "sqrt", "none"]), batch_size=st.integers(1, 4096))
def test_weights_shrink_as_much_an_image_in_batches_of_any_size(scaling, batch_size):
    config = LearningRateConfig(batch_scaling=scaling)
    shrinking = peak_rate(config, batch_size) * decay_factor(config, batch_size, 48) / batch_size
    assert shrinking == pytest.approx(peak_rate(config, 48) / 48)


def test_cosine_stays_at_its_end_behind_the_end():
    assert simple(15, schedule="cosine") == pytest.approx(0.0)


@given(
    # A step of 5e-324, of which there is no half, is nothing that a run has.
    step=st.floats(0, 1000, allow_subnormal=False),
    batch_size=st.integers(1, 8192),
    schedule=st.sampled_from(["exponential", "cosine", "linear", "constant"]),
    warmup=st.floats(0, 20, allow_subnormal=False),
)
def test_the_rate_is_proportional_to_the_batch_and_within_the_peak(step, batch_size, schedule, warmup):
    config = LearningRateConfig(schedule=schedule, warmup_epochs=warmup)
    rates = [
        learning_rate(config, step, steps_per_epoch=10.0, total_steps=1000.0, batch_size=size)
        for size in (batch_size, 2 * batch_size)
    ]
    assert rates[1] == pytest.approx(2 * rates[0])
    assert 0 <= rates[0] <= config.base * batch_size / 256 * (1 + 1e-9)


@given(step=st.integers(50, 999), schedule=st.sampled_from(["exponential", "cosine", "linear", "constant"]))
def test_the_rate_never_rises_behind_the_warmup(step, schedule):
    rates = [
        simple(at, epochs=100.0, steps_per_epoch=10.0, warmup_epochs=5.0, schedule=schedule)
        for at in (step, step + 1)
    ]
    assert rates[1] <= rates[0]
