"""What a run will cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from effnet.arch import NetworkSpec, StageSpec, network, spec_to_json
from effnet.config import Config, DataConfig, EmaConfig, ModelConfig, ProgressiveConfig, TrainConfig
from effnet.recipes import load_recipe
from effnet.schedule.progressive import StageSchedule, StageSettings, stage_schedule
from effnet.training import preflight
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.preflight import StageCost, measure, plan

SETTINGS = {
    "start_step",
    "image_size",
    "batch_size",
    "randaugment_magnitude",
    "mixup_alpha",
    "cutmix_alpha",
    "erasing_probability",
    "dropout_rate",
    "drop_path_rate",
}


def imagenet_schedule(recipe: str, train_size: int = 300) -> StageSchedule:
    config = load_recipe(recipe)
    return stage_schedule(
        config.progressive, config.train, train_images=config.data.train_images, train_size=train_size
    )


def cost(seconds: float, memory: int) -> StageCost:
    return StageCost(
        measured_batch_size=8, fits=True, seconds_per_step=seconds, images_per_second=1.0, memory_bytes=memory
    )


# The plan


@pytest.mark.parametrize("costs", [(), tuple(cost(0.5 * n, n) for n in (1, 2, 4, 3))])
def test_a_plan_says_what_every_stage_trains_with(costs):
    schedule = imagenet_schedule("v2-s.release")
    document = json.loads(json.dumps(plan(schedule, network("v2-s"), costs).to_dict()))
    assert document["total_steps"] == 107_336
    assert document["train_images"] == 1_256_144  # the release holds out the rest
    assert [stage["image_size"] for stage in document["stages"]] == [171, 214, 257, 300]
    assert [stage["start_step"] for stage in document["stages"]] == [0, 26_834, 53_668, 80_502]
    for stage, settings in zip(document["stages"], schedule.stages, strict=True):
        assert stage.keys() >= SETTINGS
        assert {name: stage[name] for name in SETTINGS} == {
            name: getattr(settings, name) for name in SETTINGS
        }
    assert sum(stage["steps"] for stage in document["stages"]) == document["total_steps"]


def test_the_predicted_time_is_the_sum_of_the_stages_and_the_memory_their_peak():
    schedule = imagenet_schedule("v2-s.release")
    costs = tuple(cost(0.5 * n, n) for n in (1, 2, 4, 3))
    document = plan(schedule, network("v2-s"), costs).to_dict()
    assert document["seconds"] == pytest.approx(26_834 * 0.5 * (1 + 2 + 4 + 3))
    assert document["memory_bytes"] == 4
    assert [stage["seconds_per_step"] for stage in document["stages"]] == [0.5, 1.0, 2.0, 1.5]


def test_a_plan_without_measurement_predicts_neither_time_nor_memory():
    document = plan(imagenet_schedule("v2-s.release"), network("v2-s")).to_dict()
    assert not document.keys() & {"seconds", "memory_bytes"}
    assert not any(stage.keys() & {"seconds_per_step", "fits"} for stage in document["stages"])


@pytest.mark.parametrize(
    ("recipe", "share"),
    # By hooks on the convolutions of the network itself. The pixels alone would give 0.642 and 0.553: sizes
    # are rounded up wherever the network halves them.
    [("v2-s.release", 0.6579), ("v2-s.paper", 0.5583)],
)
def test_progressive_training_of_v2_s_does_this_share_of_the_arithmetic(recipe, share):
    assert plan(imagenet_schedule(recipe), network("v2-s")).relative_macs == pytest.approx(share, abs=2e-4)


def test_one_size_throughout_is_all_of_the_arithmetic():
    schedule = stage_schedule(
        ProgressiveConfig(stages=1), TrainConfig(epochs=3.0), train_images=1000, train_size=300
    )
    assert plan(schedule, network("v2-s")).relative_macs == 1.0


def test_larger_batches_of_smaller_images_count_by_their_images():
    settings = ProgressiveConfig(stages=2, image_size=(150, 300), batch_rule="pixels")
    pixels = stage_schedule(settings, TrainConfig(epochs=8.0), train_images=1024, train_size=300)
    constant = stage_schedule(
        ProgressiveConfig(stages=2, image_size=(150, 300)),
        TrainConfig(epochs=8.0),
        train_images=1024,
        train_size=300,
    )
    assert pixels.total_steps < constant.total_steps
    expected = plan(constant, network("v2-s")).relative_macs
    assert plan(pixels, network("v2-s")).relative_macs == pytest.approx(expected, rel=1e-6)


# Measuring


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    spec = NetworkSpec(
        name="tiny",
        stages=(
            StageSpec(operation="mbconv", kernel_size=3, stride=1, expand_ratio=2, channels=8, repeats=2),
        ),
        stem_channels=8,
        head_channels=16,
        image_size=32,
        train_size=32,
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    return prepare_experiment(
        Config(
            model=ModelConfig(network=str(tmp_path / "tiny.json")),
            data=DataConfig(source="digits", workers=1),
            progressive=ProgressiveConfig(
                stages=3, image_size=(8, 32), mixup_alpha=(0.2, 0.2), drop_path_rate=(0.0, 0.2)
            ),
            train=TrainConfig(epochs=2.0, batch_size=40),
            ema=EmaConfig(decay=0.9),
        )
    )


def test_measuring_predicts_from_real_steps_of_every_stage(experiment, monkeypatch):
    seen: list[tuple[int, int]] = []
    real = preflight.train_step

    def step(state, batch, experiment):
        seen.append((batch.images.shape[1], len(batch.images)))
        return real(state, batch, experiment)

    monkeypatch.setattr(preflight, "train_step", step)
    reported: list[StageSettings] = []
    measured = measure(experiment, reported.append)
    # The largest first, so that what does not fit is known first; no more images than a processor needs.
    assert [settings.image_size for settings in reported] == [32, 20, 8]
    assert seen == [(size, 32) for size in (32, 20, 8) for _ in range(4)]
    assert measured.schedule == experiment.schedule
    for stage_cost in measured.costs:
        assert stage_cost.seconds_per_step > 0
        assert stage_cost.measured_batch_size == 32
        assert stage_cost.fits
        # The time is for the stage's own 40 images.
        per_second = 40 / stage_cost.seconds_per_step
        assert stage_cost.images_per_second == pytest.approx(per_second)
    assert measured.seconds > 0


def test_memory_on_a_processor_is_the_growth_of_the_process_scaled_to_the_stage(experiment, monkeypatch):
    peaks = iter([100, 164, 164, 164, 164, 164])
    monkeypatch.setattr(preflight, "_peak_process_bytes", lambda: next(peaks))
    measured = measure(experiment, lambda settings: None)
    largest = int(64 * 40 / 32)
    assert measured.memory_bytes == largest
    assert [stage_cost.memory_bytes for stage_cost in measured.costs] == [
        int(largest * size**2 / 32**2) for size in (8, 20, 32)
    ]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(experiment, monkeypatch):
    def steps(experiment, state, settings):
        if settings.image_size == 32 and settings.batch_size > 8:
            raise torch.OutOfMemoryError("too large")
        return 0.5, 1000

    monkeypatch.setattr(preflight, "_time_steps", steps)
    small, middle, large = measure(experiment, lambda settings: None).costs
    assert (small.fits, middle.fits, large.fits) == (True, True, False)
    assert (middle.measured_batch_size, large.measured_batch_size) == (32, 8)
    assert large.seconds_per_step == pytest.approx(0.5 * 40 / 8)
    assert large.memory_bytes == 1000 * 40 / 8


def test_measuring_writes_nothing(experiment, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    before = sorted(Path(tmp_path).rglob("*"))
    measure(experiment, lambda settings: None)
    assert sorted(Path(tmp_path).rglob("*")) == before


def test_of_many_sizes_eight_are_measured_and_the_others_cost_in_proportion_to_their_pixels(
    experiment, monkeypatch
):
    config = ProgressiveConfig(mode="linear", image_size=(8, 32))
    train = experiment.config.train
    experiment = replace(
        experiment,
        schedule=stage_schedule(config, train, train_images=1437, train_size=32),
    )

    def steps(experiment, state, settings):
        return settings.image_size**2 * settings.batch_size / 1e6, settings.image_size**2 * 100

    monkeypatch.setattr(preflight, "_time_steps", steps)
    reported: list[StageSettings] = []
    measured = measure(experiment, reported.append)
    assert [settings.image_size for settings in reported] == [32, 29, 26, 22, 19, 15, 12, 8]
    assert len(measured.costs) == len(experiment.schedule.stages) == 25
    for settings, stage_cost in zip(experiment.schedule.stages, measured.costs, strict=True):
        assert stage_cost.seconds_per_step == pytest.approx(settings.image_size**2 * 40 / 1e6)


def test_a_size_that_comes_again_is_measured_once(experiment, monkeypatch):
    config = ProgressiveConfig(mode="random", image_size=(8, 32), size_multiple=24, redraw_epochs=0.1)
    experiment = replace(
        experiment,
        schedule=stage_schedule(config, experiment.config.train, train_images=1437, train_size=32),
    )
    monkeypatch.setattr(preflight, "_time_steps", lambda experiment, state, settings: (0.5, 1000))
    reported: list[StageSettings] = []
    measured = measure(experiment, reported.append)
    assert [settings.image_size for settings in reported] == [32, 24]
    assert len(measured.costs) == len(experiment.schedule.stages) > 2
