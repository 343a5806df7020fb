from dataclasses import replace

import pytest

from effnet.api import start_run
from effnet.config import Config, DistributedConfig, ProgressiveConfig, TrainConfig
from effnet.schedule.progressive import stage_schedule
from effnet.training.experiment import prepare_experiment
from effnet.training.norm_advice import norm_advice


@pytest.fixture
def advice(digits_run):
    """Advice for two stages of 64 and 32 px, of which the first has larger batches."""
    one = prepare_experiment(digits_run).processes

    def ask(*, processes: int = 1, norm: str = "local", **train) -> str:
        config = Config(
            train=TrainConfig(epochs=4.0, **train),
            distributed=DistributedConfig(norm=norm, norm_group=4),
            progressive=ProgressiveConfig(stages=2, image_size=(32, 64), batch_rule="pixels"),
        )
        schedule = stage_schedule(config.progressive, config.train, train_images=1000, train_size=64)
        return norm_advice(config, schedule, replace(one, count=processes))

    return ask


def test_the_smallest_batch_is_named_with_what_helps(advice):
    assert advice(batch_size=8) == (
        "batch norm has only 8 images at a time in stage 2, and is unreliable below 16: "
        "a larger train.batch_size or train.freeze_norm=true with loaded weights helps"
    )
    assert "train.micro_batch_size or train.freeze_norm" in advice(batch_size=64, micro_batch_size=12)
    assert "distributed.norm=all or" in advice(batch_size=64, processes=8)


@pytest.mark.parametrize(
    ("images", "asked"),
    [
        (15, {"batch_size": 15}),
        (10, {"batch_size": 40, "micro_batch_size": 12}),
        (8, {"batch_size": 64, "processes": 8}),
        (4, {"batch_size": 16, "processes": 8, "norm": "group", "micro_batch_size": 1}),
        (8, {"batch_size": 8, "processes": 8, "norm": "all"}),
    ],
)
def test_images_are_those_that_batch_norm_sees_at_once(advice, images, asked):
    assert f"only {images} images at a time" in advice(**asked)


@pytest.mark.parametrize(
    "asked",
    [
        {"batch_size": 16},
        {"batch_size": 32, "micro_batch_size": 16},
        {"batch_size": 32, "processes": 8, "norm": "group"},
        {"batch_size": 16, "processes": 8, "norm": "all"},
        {"batch_size": 4, "freeze_norm": True},
        {"batch_size": 4, "head_epochs": 5.0},
    ],
)
def test_there_is_no_advice_where_batches_are_large_or_do_not_matter(advice, asked):
    assert advice(**asked) == ""


def test_a_run_begins_with_the_advice(digits_run, tmp_path, capsys):
    small = replace(digits_run, train=replace(digits_run.train, micro_batch_size=8, epochs=0.1))
    start_run(small, tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    lines = [line for line in lines if "Numba" not in line]
    assert [line for line in lines if "batch norm has only 8 images" in line] == lines[:1]
