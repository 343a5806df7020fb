"""Algorithm 1 as in the paper and as released, and what holds for every schedule."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import network
from effnet.config import ProgressiveConfig, TrainConfig
from effnet.recipes import load_recipe
from effnet.schedule.progressive import StageSettings, image_sizes, stage_schedule, total_reference_steps

IMAGENET = 1_256_144

# Recipe, image sizes, RandAugment magnitudes.
PRESETS = [
    ("v2-s.release", (171, 214, 257, 300), (5, 6.67, 8.33, 10)),
    ("v2-m.release", (192, 256, 320, 384), (5, 8.33, 11.67, 15)),
    ("v2-l.release", (192, 256, 320, 384), (5, 10, 15, 20)),
    ("v2-xl.release", (192, 256, 320, 384), (5, 10, 15, 20)),
    ("v2-b0.release", (144, 160, 176, 192), (0, 0, 0, 0)),
    ("v2-b1.release", (144, 160, 176, 192), (0, 0, 0, 0)),
    ("v2-b2.release", (148, 168, 188, 208), (0, 0, 0, 0)),
    ("v2-b3.release", (156, 184, 212, 240), (0, 0, 0, 0)),
    ("v2-s.paper", (128, 185, 242, 300), (5, 8.33, 11.67, 15)),
    ("v2-m.paper", (128, 212, 296, 380), (5, 10, 15, 20)),
    ("v2-l.paper", (128, 212, 296, 380), (5, 11.67, 18.33, 25)),
]

# Recipe, mixup, CutMix, dropout of each stage.
REGULARIZATION = [
    ("v2-s.release", (0, 0, 0, 0), (0, 0, 0, 0), (0.2, 0.2, 0.2, 0.2)),
    ("v2-m.release", (0, 0.067, 0.133, 0.2), (0, 0.067, 0.133, 0.2), (0.3, 0.3, 0.3, 0.3)),
    ("v2-l.release", (0, 0.167, 0.333, 0.5), (0, 0.167, 0.333, 0.5), (0.4, 0.4, 0.4, 0.4)),
    ("v2-xl.release", (0, 0.167, 0.333, 0.5), (0, 0.167, 0.333, 0.5), (0.4, 0.4, 0.4, 0.4)),
    ("v2-b3.release", (0, 0, 0, 0), (0, 0, 0, 0), (0.3, 0.3, 0.3, 0.3)),
    ("v2-s.paper", (0, 0, 0, 0), (0, 0, 0, 0), (0.1, 0.167, 0.233, 0.3)),
    ("v2-m.paper", (0, 0.067, 0.133, 0.2), (0, 0, 0, 0), (0.1, 0.2, 0.3, 0.4)),
    ("v2-l.paper", (0, 0.133, 0.267, 0.4), (0, 0, 0, 0), (0.1, 0.233, 0.367, 0.5)),
]


def schedule_of(recipe):
    config = load_recipe(recipe)
    spec = network(config.model.network)
    return stage_schedule(
        config.progressive, config.train, train_images=config.data.train_images, train_size=spec.train_size
    )


@pytest.mark.parametrize(("recipe", "sizes", "magnitudes"), PRESETS)
def test_sizes_and_magnitudes_are_the_published_ones(recipe, sizes, magnitudes):
    stages = schedule_of(recipe).stages
    assert tuple(stage.image_size for stage in stages) == sizes
    assert [stage.randaugment_magnitude for stage in stages] == pytest.approx(magnitudes, abs=5e-3)


@pytest.mark.parametrize(("recipe", "mixup", "cutmix", "dropout"), REGULARIZATION)
def test_regularization_is_the_published_one(recipe, mixup, cutmix, dropout):
    stages = schedule_of(recipe).stages
    assert [stage.mixup_alpha for stage in stages] == pytest.approx(mixup, abs=5e-4)
    assert [stage.cutmix_alpha for stage in stages] == pytest.approx(cutmix, abs=5e-4)
    assert [stage.dropout_rate for stage in stages] == pytest.approx(dropout, abs=5e-4)
    assert {stage.drop_path_rate for stage in stages} == {0.2}


@pytest.mark.parametrize("recipe", [recipe for recipe, *_ in PRESETS])
def test_imagenet_runs_have_the_released_number_of_steps(recipe):
    schedule = schedule_of(recipe)
    assert schedule.total_steps == 107_336
    assert [stage.steps for stage in schedule.stages] == [26_834] * 4
    assert {stage.batch_size for stage in schedule.stages} == {4096}
    assert [schedule.epoch(stage.start_step) for stage in schedule.stages] == pytest.approx(
        [0, 87.5, 175, 262.5], abs=0.01
    )


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("v2-s", (128, 185, 242, 300)),
        ("v2-m", (128, 213, 298, 384)),
        ("v2-b0", (128, 149, 170, 192)),
        ("v2-b2", (128, 154, 181, 208)),
        ("v2-b3", (128, 165, 202, 240)),
    ],
)
def test_sizes_left_out_grow_from_128_to_the_training_size(name, sizes):
    assert image_sizes(ProgressiveConfig(), network(name).train_size) == sizes


def test_a_network_smaller_than_128_px_starts_at_its_own_size():
    assert image_sizes(ProgressiveConfig(stages=3), 96) == (96, 96, 96)


@pytest.mark.parametrize("rule", ["paper", "release"])
def test_a_single_stage_has_the_last_values(rule):
    config = ProgressiveConfig(
        stages=1, image_size=(64, 96), size_rule=rule, randaugment_magnitude=(1.0, 7.0)
    )
    (stage,) = stage_schedule(config, TrainConfig(), train_images=640, train_size=224).stages
    assert (stage.image_size, stage.randaugment_magnitude) == (96, 7.0)


def test_size_multiple_rounds_down_all_but_the_last():
    config = ProgressiveConfig(image_size=(128, 300), size_multiple=32)
    assert image_sizes(config, 300) == (128, 160, 224, 300)


def test_pixels_rule_enlarges_batches_of_small_images():
    config = ProgressiveConfig(stages=3, image_size=(64, 128), batch_rule="pixels")
    stages = stage_schedule(config, TrainConfig(batch_size=32), train_images=9600, train_size=128).stages
    assert [stage.image_size for stage in stages] == [64, 96, 128]
    assert [stage.batch_size for stage in stages] == [128, 56, 32]
    assert [stage.steps for stage in stages] == [750, 1714, 3000]


def test_min_steps_lengthen_a_short_run():
    train = TrainConfig(epochs=15.0, batch_size=512, min_steps=10_000)
    assert total_reference_steps(train, 2040) == 10_000
    assert total_reference_steps(train, IMAGENET) == 36_801


def test_a_run_has_at_least_one_step():
    schedule = stage_schedule(ProgressiveConfig(), TrainConfig(epochs=0.1), train_images=1, train_size=64)
    assert schedule.total_steps == 1
    assert schedule.at(0).image_size == 64


PAIR = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9))

# Plain values: checking the types of a schedule draws random numbers, which a strategy must not.
RUNS = st.fixed_dictionaries(
    {
        "stages": st.integers(1, 9),
        "first_size": st.integers(8, 128),
        "growth": st.integers(0, 384),
        "size_rule": st.sampled_from(["paper", "release"]),
        "size_multiple": st.sampled_from([1, 8]),
        "randaugment_magnitude": PAIR,
        "mixup_alpha": PAIR,
        "erasing_probability": PAIR,
        "dropout_rate": PAIR,
        "batch_rule": st.sampled_from(["constant", "pixels"]),
        "epochs": st.floats(0.1, 50),
        "batch_size": st.integers(1, 512),
        "train_images": st.integers(1, 100_000),
    }
)


def lay_out(run):
    """Return the schedule of a run with the configurations that it comes from."""
    first = run["first_size"]
    apart = {"first_size", "growth", "epochs", "batch_size", "train_images"}
    settings = {name: value for name, value in run.items() if name not in apart}
    config = ProgressiveConfig(image_size=(first, first + run["growth"]), **settings)
    train = TrainConfig(epochs=run["epochs"], batch_size=run["batch_size"])
    return config, train, stage_schedule(config, train, train_images=run["train_images"], train_size=224)


@given(RUNS)
def test_stages_partition_the_run(run):
    config, _, schedule = lay_out(run)
    stages = schedule.stages
    assert len(stages) == config.stages
    assert stages[0].start_step == 0
    assert stages[-1].end_step == schedule.total_steps >= 1
    for before, stage in pairwise(stages):
        assert before.end_step == stage.start_step
        assert before.stage + 1 == stage.stage
        assert before.image_size <= stage.image_size
        assert before.batch_size >= stage.batch_size
    for stage in stages:
        for step in {stage.start_step, stage.end_step - 1} if stage.steps else ():
            assert schedule.at(step) is stage
    assert schedule.at(schedule.total_steps + 7) is stages[-1]


@given(RUNS)
def test_values_run_from_the_first_to_the_last(run):
    config, _, schedule = lay_out(run)
    for name in (
        "randaugment_magnitude",
        "mixup_alpha",
        "erasing_probability",
        "dropout_rate",
        "drop_path_rate",
    ):
        start, end = getattr(config, name)
        values = [getattr(stage, name) for stage in schedule.stages]
        assert values[-1] == pytest.approx(end)
        assert len(values) == 1 or values[0] == pytest.approx(start)
        assert all(min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9 for value in values)
    assert schedule.stages[-1].image_size == config.image_size[1]


@given(RUNS)
def test_images_are_counted_step_by_step(run):
    _, _, schedule = lay_out(run)
    for stage in schedule.stages:
        used = schedule.samples_before(stage.end_step) - schedule.samples_before(stage.start_step)
        assert used == stage.steps * stage.batch_size
    assert schedule.samples_before(schedule.total_steps + 5) == schedule.samples_before(schedule.total_steps)
    last = schedule.total_steps - 1
    assert schedule.samples_before(last + 1) - schedule.samples_before(last) == schedule.at(last).batch_size


@given(RUNS)
def test_pixels_rule_sees_the_same_images_to_within_a_batch_a_stage(run):
    config, train, schedule = lay_out(run)
    images = total_reference_steps(train, schedule.train_images) * train.batch_size
    lost = images - schedule.samples_before(schedule.total_steps)
    assert 0 <= lost < sum(stage.batch_size for stage in schedule.stages)
    assert config.batch_rule == "pixels" or lost == 0


@given(RUNS)
def test_pixels_of_a_batch_never_grow_beyond_the_last_stage(run):
    _, train, schedule = lay_out(run)
    last = schedule.stages[-1]
    assert last.batch_size == train.batch_size
    for stage in schedule.stages:
        assert stage.batch_size * stage.image_size**2 <= last.batch_size * last.image_size**2


@given(run=RUNS, epoch=st.floats(0, 60))
def test_step_at_epoch_is_the_first_that_has_seen_so_many_epochs(run, epoch):
    _, _, schedule = lay_out(run)
    step = schedule.step_at_epoch(epoch)
    assert 0 <= step <= schedule.total_steps
    assert step == schedule.total_steps or schedule.epoch(step) >= epoch - 1e-6
    assert step == 0 or schedule.epoch(step - 1) < epoch + 1e-6


@given(run=RUNS, position=st.floats(0, 1))
def test_step_at_epoch_inverts_epoch(run, position):
    _, _, schedule = lay_out(run)
    step = round(position * schedule.total_steps)
    assert schedule.step_at_epoch(schedule.epoch(step)) == step


@given(run=RUNS, position=st.floats(0, 1))
def test_reference_steps_are_steps_where_the_batch_is_constant(run, position):
    _, train, schedule = lay_out(run | {"batch_rule": "constant"})
    step = round(position * schedule.total_steps)
    assert schedule.reference_step(step) == step
    assert schedule.total_reference_steps == total_reference_steps(train, schedule.train_images)


def test_stage_settings_go_into_a_journal_under_their_names():
    stage = schedule_of("v2-s.paper").stages[0]
    assert StageSettings(**stage.to_dict()) == stage
    assert replace(stage, image_size=1).to_dict()["image_size"] == 1
