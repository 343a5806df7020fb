"""Sizes that grow in small steps, that are drawn, and what is coupled to them."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.config import COUPLED, ProgressiveConfig, TrainConfig
from effnet.schedule.progressive import (
    LABELS,
    StageSettings,
    drawn_index,
    image_sizes,
    stage_schedule,
    total_reference_steps,
)


def lay_out(*, epochs=30.0, batch_size=10, train_images=100, seed=0, **settings):
    train = TrainConfig(epochs=epochs, batch_size=batch_size, seed=seed)
    return stage_schedule(ProgressiveConfig(**settings), train, train_images=train_images, train_size=64)


def column(schedule, name):
    return [getattr(stage, name) for stage in schedule.stages]


PINNED = [4, 0, 3, 8, 0, 1, 1, 2]

# What is coupled


def test_everything_coupled_is_configured_carried_and_labelled():
    assert set(LABELS) == set(COUPLED)
    assert set(COUPLED) <= {field.name for field in fields(ProgressiveConfig)}
    assert set(COUPLED) <= {field.name for field in fields(StageSettings)}
    assert ProgressiveConfig().coupled == COUPLED


@pytest.mark.parametrize("mode", ["staged", "linear", "random"])
@pytest.mark.parametrize("coupled", [(), ("dropout_rate",), COUPLED])
def test_what_is_not_coupled_has_its_last_value_throughout(mode, coupled):
    pairs = dict.fromkeys(COUPLED, (0.1, 0.5))
    schedule = lay_out(
        mode=mode, image_size=(32, 64), size_multiple=8, redraw_epochs=1.0, coupled=coupled, **pairs
    )
    assert len(set(column(schedule, "image_size"))) > 3
    for name in COUPLED:
        values = set(column(schedule, name))
        assert len(values) > 3 if name in coupled else values == {0.5}


# Linear


def test_linear_grows_by_one_multiple_at_a_time():
    schedule = lay_out(mode="linear", image_size=(32, 64), size_multiple=8, randaugment_magnitude=(5.0, 15.0))
    assert column(schedule, "image_size") == [32, 40, 48, 56, 64]
    assert column(schedule, "end_step") == [60, 120, 180, 240, 300]
    assert column(schedule, "randaugment_magnitude") == [5.0, 7.5, 10.0, 12.5, 15.0]


@pytest.mark.parametrize(
    ("first", "last", "multiple", "sizes"),
    [
        (128, 300, 32, (128, 160, 192, 224, 256, 288, 300)),
        (171, 224, 32, (160, 192, 224)),
        (20, 40, 32, (32, 40)),
        (20, 30, 32, (30,)),
        (64, 64, 8, (64,)),
        (3, 6, 1, (3, 4, 5, 6)),
    ],
)
def test_sizes_are_the_multiples_and_the_last(first, last, multiple, sizes):
    for mode in ("linear", "random"):
        config = ProgressiveConfig(mode=mode, image_size=(first, last), size_multiple=multiple)
        assert image_sizes(config, 224) == sizes


# Random


def test_a_size_is_drawn_every_8_epochs():
    schedule = lay_out(mode="random", epochs=30, image_size=(32, 64))
    # 10 steps an epoch; the last draw is cut short by the end of the run.
    assert column(schedule, "end_step") == [80, 160, 240, 300]


def test_draws_are_those_of_earlier_versions():
    # Of SHA-256 of "image size 0/0" and so on, by another program: a run must be the same in all versions.
    assert [drawn_index(0, draw, 10) for draw in range(8)] == PINNED
    assert [drawn_index(1, draw, 10) for draw in range(8)] != PINNED


def test_values_follow_the_drawn_size():
    schedule = lay_out(
        mode="random", image_size=(32, 64), redraw_epochs=1.0, dropout_rate=(0.1, 0.5), mixup_alpha=(0.2, 0.2)
    )
    for stage in schedule.stages:
        assert stage.dropout_rate == pytest.approx(0.1 + 0.4 * (stage.image_size - 32) / 32)
        assert stage.mixup_alpha == 0.2


def test_every_size_is_drawn_about_equally_often():
    counts = [0] * 7
    for draw in range(7000):
        counts[drawn_index(3, draw, 7)] += 1
    # The standard deviation of each is 29.
    assert all(abs(count - 1000) < 120 for count in counts)


def test_draws_shorter_than_a_step_take_a_step():
    schedule = lay_out(mode="random", image_size=(32, 64), train_images=1, epochs=50.0, redraw_epochs=1.0)
    assert column(schedule, "end_step") == [1, 2, 3, 4, 5]


def test_a_run_of_one_step_has_it_even_where_its_batch_has_grown():
    schedule = lay_out(
        mode="random", image_size=(8, 64), size_multiple=8, batch_rule="pixels", epochs=0.1, train_images=1
    )
    assert schedule.total_steps == 1


# Cooldown


@pytest.mark.parametrize("mode", ["staged", "linear", "random"])
def test_a_cooldown_ends_the_run_with_the_last_size_and_values(mode):
    schedule = lay_out(mode=mode, cooldown_epochs=5.0, image_size=(32, 64), dropout_rate=(0.1, 0.5))
    *others, last = schedule.stages
    assert (last.start_step, last.end_step) == (250, 300)
    assert (last.image_size, last.dropout_rate) == (64, 0.5)
    assert sum(stage.steps for stage in others) == 250
    without = lay_out(mode=mode, epochs=25.0, image_size=(32, 64), dropout_rate=(0.1, 0.5))
    assert others == list(without.stages)


@pytest.mark.parametrize("mode", ["staged", "linear", "random"])
def test_a_cooldown_longer_than_the_run_is_all_of_it(mode):
    schedule = lay_out(mode=mode, cooldown_epochs=50.0, image_size=(32, 64))
    assert {schedule.at(step).image_size for step in range(300)} == {64}


# What holds for every schedule

RUNS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["staged", "linear", "random"]),
        "image_size": st.tuples(st.integers(8, 64), st.integers(64, 128)),
        "size_multiple": st.sampled_from([1, 8, 32]),
        "batch_rule": st.sampled_from(["constant", "pixels"]),
        "redraw_epochs": st.floats(0.5, 20),
        "cooldown_epochs": st.sampled_from([0.0, 0.7, 4.0]),
        "randaugment_magnitude": st.tuples(st.floats(0, 5), st.floats(5, 20)),
        "coupled": st.lists(st.sampled_from(COUPLED), unique=True).map(tuple),
        "epochs": st.floats(0.1, 50),
        "batch_size": st.integers(1, 512),
        "train_images": st.integers(1, 100_000),
        "seed": st.integers(0, 5),
    }
)


@given(RUNS)
def test_stages_partition_the_run(run):
    schedule = lay_out(**run)
    stages = schedule.stages
    assert [stage.stage for stage in stages] == list(range(len(stages)))
    assert stages[0].start_step == 0
    assert stages[-1].end_step == schedule.total_steps >= 1
    for before, stage in pairwise(stages):
        assert before.end_step == stage.start_step
    for stage in stages[:50]:
        for step in {stage.start_step, stage.end_step - 1} if stage.steps else ():
            assert schedule.at(step) is stage


@given(RUNS)
def test_the_same_images_are_seen_to_within_a_batch_a_stage(run):
    schedule = lay_out(**run)
    train = TrainConfig(epochs=run["epochs"], batch_size=run["batch_size"])
    images = total_reference_steps(train, run["train_images"]) * run["batch_size"]
    lost = images - schedule.samples_before(schedule.total_steps)
    assert lost < sum(stage.batch_size for stage in schedule.stages)
    assert run["batch_rule"] == "pixels" or lost == 0


@given(RUNS)
def test_sizes_and_values_are_in_range_and_grow_together(run):
    schedule = lay_out(**run)
    config = ProgressiveConfig(
        mode=run["mode"], image_size=run["image_size"], size_multiple=run["size_multiple"]
    )
    sizes, (low, high) = image_sizes(config, 64), run["randaugment_magnitude"]
    stages = sorted(schedule.stages, key=lambda stage: stage.image_size)
    for smaller, larger in pairwise(stages):
        assert smaller.randaugment_magnitude <= larger.randaugment_magnitude + 1e-9
        assert smaller.batch_size >= larger.batch_size
    for stage in stages:
        assert stage.image_size in sizes
        assert low - 1e-9 <= stage.randaugment_magnitude <= high + 1e-9
    if run["mode"] != "random":
        assert column(schedule, "image_size") == sorted(column(schedule, "image_size"))
        assert stages[-1].image_size == run["image_size"][1]
        assert schedule.stages[-1].randaugment_magnitude == pytest.approx(high)


@given(RUNS)
def test_a_schedule_is_a_function_of_the_configuration(run):
    assert lay_out(**run) == lay_out(**run)
    if run["mode"] != "random":
        assert lay_out(**run).stages == lay_out(**run | {"seed": 9}).stages


@given(run=RUNS, epochs=st.floats(1, 30))
def test_a_longer_run_draws_the_same_sizes_at_first(run, epochs):
    run |= {"mode": "random", "cooldown_epochs": 0.0}
    short, long = (lay_out(**run | {"epochs": value}) for value in (epochs, epochs + 20))
    drawn = column(short, "image_size")
    assert column(long, "image_size")[: len(drawn)] == drawn
