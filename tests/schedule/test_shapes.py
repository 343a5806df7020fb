"""What makes other schedules than the paper's: powers, a hold, a cooldown as a share, a limit on batches."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from effnet.config import COUPLED, ProgressiveConfig, TrainConfig
from effnet.schedule.progressive import image_sizes, stage_schedule, total_reference_steps


def lay_out(*, epochs=30.0, batch_size=64, train_images=640, **settings):
    train = TrainConfig(epochs=epochs, batch_size=batch_size)
    return stage_schedule(ProgressiveConfig(**settings), train, train_images=train_images, train_size=64)


def column(schedule, name):
    return [getattr(stage, name) for stage in schedule.stages]


def share_of_fixed_cost(schedule):
    """Return pixels trained on, relative to all images at the last size."""
    last = schedule.stages[-1].image_size
    spent = sum(stage.steps * stage.batch_size * stage.image_size**2 for stage in schedule.stages)
    return spent / (schedule.samples_before(schedule.total_steps) * last**2)


# Powers


@pytest.mark.parametrize(
    ("power", "sizes"),
    [
        # 128 + 172 * (0, 1/9, 4/9, 1)
        (2.0, (128, 147, 204, 300)),
        (1.0, (128, 185, 242, 300)),
        # 128 + 172 * (0, 0.57735, 0.81650, 1)
        (0.5, (128, 227, 268, 300)),
    ],
)
def test_a_power_bends_the_papers_sizes(power, sizes):
    assert image_sizes(ProgressiveConfig(image_size=(128, 300), size_power=power), 300) == sizes


def test_a_power_bends_the_released_sizes():
    # 128 + 172 * (1/16, 1/4, 9/16, 1)
    config = ProgressiveConfig(image_size=(128, 300), size_rule="release", size_power=2.0)
    assert image_sizes(config, 300) == (138, 171, 224, 300)


def test_what_is_whole_in_a_power_is_not_rounded_down():
    # Stage 1 of 5 has gone the root of a quarter, which is half of the way.
    config = ProgressiveConfig(stages=5, image_size=(16, 32), size_power=0.5)
    assert image_sizes(config, 32) == (16, 24, 27, 29, 32)


def test_values_follow_the_size_and_their_own_power():
    settings = {"image_size": (100, 200), "stages": 3, "randaugment_magnitude": (4.0, 20.0)}
    assert column(lay_out(**settings, size_power=2.0), "image_size") == [100, 125, 200]
    assert column(lay_out(**settings, size_power=2.0), "randaugment_magnitude") == [4.0, 8.0, 20.0]
    stronger = lay_out(**settings, size_power=2.0, regularization_power=0.5)
    assert column(stronger, "randaugment_magnitude") == [4.0, 12.0, 20.0]
    weaker = lay_out(**settings, regularization_power=2.0)
    assert column(weaker, "image_size") == [100, 150, 200]
    assert column(weaker, "randaugment_magnitude") == [4.0, 8.0, 20.0]


def test_values_of_drawn_sizes_follow_their_power():
    schedule = lay_out(
        mode="random",
        image_size=(32, 64),
        size_multiple=16,
        dropout_rate=(0.0, 0.4),
        regularization_power=2.0,
    )
    assert {(stage.image_size, stage.dropout_rate) for stage in schedule.stages} == {
        (32, 0.0),
        (48, 0.1),
        (64, 0.4),
    }


def test_a_power_gives_sizes_of_the_linear_mode_more_or_less_time():
    # Two sizes: the first has the way up to the half, whose inverse power 1/2 is 0.70711 of 300 steps.
    schedule = lay_out(mode="linear", image_size=(32, 64), size_multiple=32, size_power=2.0)
    assert [(stage.image_size, stage.steps) for stage in schedule.stages] == [(32, 212), (64, 88)]


# Hold and cooldown


def test_composers_default_schedule_costs_half():
    schedule = lay_out(
        mode="linear", image_size=(112, 224), size_multiple=4, hold_share=0.5, cooldown_share=0.2, epochs=290
    )
    stages = [stage for stage in schedule.stages if stage.steps]
    assert schedule.total_steps == 2900
    # The first of 29 sizes has its 30 of 870 steps more; the last one the cooldown.
    assert stages[0].image_size == 112
    assert stages[0].steps == 1450 + 30
    assert [stage.image_size for stage in stages[-2:]] == [224, 224]
    assert stages[-1].steps == 580
    assert column(schedule, "image_size")[:29] == list(range(112, 225, 4))
    # 0.5 * 0.25 + 0.2, and 0.3 of the mean of (0.5 + i / 56) ** 2 over i = 0 ... 28.
    assert share_of_fixed_cost(schedule) == pytest.approx(0.325 + 0.3 * (0.25 + 0.25 + 266 / 3136), abs=1e-9)


def test_the_papers_schedule_costs_as_much_as_it_says():
    schedule = lay_out(image_size=(128, 300))
    assert share_of_fixed_cost(schedule) == pytest.approx(
        (128**2 + 185**2 + 242**2 + 300**2) / 4 / 300**2, abs=1e-9
    )


def test_a_hold_lengthens_the_first_stage_where_that_has_the_first_size():
    schedule = lay_out(image_size=(32, 64), stages=3, hold_share=0.4)
    assert column(schedule, "image_size") == [32, 48, 64]
    assert column(schedule, "steps") == [120 + 60, 60, 60]


def test_a_hold_is_a_stage_of_its_own_before_released_sizes():
    schedule = lay_out(
        image_size=(32, 64), stages=2, size_rule="release", hold_share=0.4, dropout_rate=(0.1, 0.3)
    )
    assert column(schedule, "image_size") == [32, 48, 64]
    assert column(schedule, "steps") == [120, 90, 90]
    assert column(schedule, "dropout_rate") == pytest.approx([0.1, 0.1, 0.3])


def test_a_hold_before_a_single_stage_is_a_switch_of_size():
    schedule = lay_out(image_size=(32, 64), stages=1, hold_share=0.25, batch_rule="pixels")
    assert column(schedule, "image_size") == [32, 64]
    # 75 reference steps of 64 images in batches of 256; what is left of one is lost.
    assert column(schedule, "batch_size") == [256, 64]
    assert column(schedule, "steps") == [18, 225]


def test_sizes_are_drawn_behind_the_hold():
    settings = {"mode": "random", "image_size": (32, 64), "size_multiple": 16, "redraw_epochs": 1.0}
    held = lay_out(**settings, hold_share=0.5)
    drawn = lay_out(**settings, epochs=15.0)
    assert {held.at(step).image_size for step in range(150)} == {32}
    assert [held.at(150 + step).image_size for step in range(150)] == [
        drawn.at(step).image_size for step in range(150)
    ]


def test_a_cooldown_is_a_share_of_the_run():
    assert lay_out(cooldown_share=0.2) == lay_out(cooldown_epochs=6.0)
    assert lay_out(cooldown_share=0.29, epochs=10.0).stages[-1].steps == 29


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"cooldown_epochs": 2.0, "cooldown_share": 0.1},
            "cooldown_epochs or cooldown_share, got 2 and 0.1",
        ),
        ({"hold_share": 0.7, "cooldown_share": 0.4}, "at most 1 together, got 0.7 and 0.4"),
        ({"batch_limit": 0.5}, "batch_limit must be 0 or at least 1, got 0.5"),
        ({"size_power": 0.0}, "greater than 0"),
        ({"regularization_power": -1.0}, "greater than 0"),
    ],
)
def test_what_makes_no_schedule_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        ProgressiveConfig(**settings)


# Batches


@pytest.mark.parametrize(
    ("limit", "batches"), [(0.0, [256, 112, 64]), (2.0, [128, 112, 64]), (1.0, [64] * 3)]
)
def test_batches_grow_up_to_their_limit(limit, batches):
    schedule = lay_out(image_size=(32, 64), stages=3, batch_rule="pixels", batch_limit=limit)
    assert column(schedule, "batch_size") == batches


# What holds for every schedule

RUNS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["staged", "linear"]),
        "size_rule": st.sampled_from(["paper", "release"]),
        "stages": st.integers(1, 6),
        "image_size": st.tuples(st.integers(8, 64), st.integers(64, 128)),
        "size_multiple": st.sampled_from([1, 8]),
        "size_power": st.sampled_from([0.3, 0.5, 1.0, 1.7, 3.0]),
        "regularization_power": st.sampled_from([0.4, 1.0, 2.5]),
        "hold_share": st.floats(0, 0.6),
        "cooldown_share": st.floats(0, 0.4),
        "batch_rule": st.sampled_from(["constant", "pixels"]),
        "batch_limit": st.sampled_from([0.0, 1.0, 1.5, 4.0]),
        "randaugment_magnitude": st.tuples(st.floats(0, 5), st.floats(5, 20)),
        "epochs": st.floats(0.1, 50),
        "batch_size": st.integers(1, 512),
        "train_images": st.integers(1, 100_000),
    }
)


@given(RUNS)
def test_everything_runs_from_its_first_to_its_last_value_and_never_back(run):
    schedule = lay_out(**run)
    stages, (first, last) = schedule.stages, run["image_size"]
    for before, stage in pairwise(stages):
        assert before.end_step == stage.start_step
        assert before.image_size <= stage.image_size
        assert before.batch_size >= stage.batch_size
        for name in COUPLED:
            start, end = getattr(ProgressiveConfig(**_settings(run)), name)
            assert (stage.coupled[name] - before.coupled[name]) * (end - start) >= -1e-12
    assert min(first, 8) <= stages[0].image_size
    assert stages[-1].image_size == last
    assert stages[-1].batch_size == run["batch_size"]
    assert stages[-1].randaugment_magnitude == pytest.approx(run["randaugment_magnitude"][1])


@given(RUNS)
def test_the_images_of_a_run_do_not_depend_on_its_shape(run):
    schedule = lay_out(**run)
    train = TrainConfig(epochs=run["epochs"], batch_size=run["batch_size"])
    images = total_reference_steps(train, run["train_images"]) * run["batch_size"]
    lost = images - schedule.samples_before(schedule.total_steps)
    assert lost < sum(stage.batch_size for stage in schedule.stages)
    assert run["batch_rule"] == "pixels" or lost == 0


@given(RUNS)
def test_batches_have_no_more_pixels_and_no_more_images_than_they_may(run):
    schedule = lay_out(**run)
    largest = run["batch_size"] * (run["batch_limit"] or float("inf"))
    for stage in schedule.stages:
        assert stage.batch_size <= max(largest, run["batch_size"])
        pixels = stage.batch_size * stage.image_size**2
        assert pixels <= run["batch_size"] * run["image_size"][1] ** 2


@given(RUNS)
def test_the_cost_lies_between_that_of_the_first_and_the_last_size(run):
    schedule = lay_out(**run)
    first, last = schedule.stages[0].image_size, schedule.stages[-1].image_size
    assert (first / last) ** 2 - 1e-9 <= share_of_fixed_cost(schedule) <= 1 + 1e-9


@given(RUNS, st.floats(1.0, 3.0))
def test_a_larger_power_never_costs_more(run, factor):
    run |= {"batch_rule": "constant"}
    more = run | {"size_power": run["size_power"] * factor}
    assert share_of_fixed_cost(lay_out(**more)) <= share_of_fixed_cost(lay_out(**run)) + 1e-9


def _settings(run):
    return {
        name: value for name, value in run.items() if name not in {"epochs", "batch_size", "train_images"}
    }
