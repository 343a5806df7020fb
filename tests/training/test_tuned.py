"""What was measured on this machine is used where the same is asked again, and nowhere else."""

import json
from dataclasses import replace

import pytest
import torch

from effnet.arch import load_spec
from effnet.config import AugmentConfig, Config, DataConfig, ModelConfig, ProgressiveConfig, TrainConfig
from effnet.training import tuned
from effnet.training.experiment import prepare_experiment
from effnet.training.tuned import (
    apply_choice,
    compute_subject,
    find_choice,
    keep_choice,
    loader_subject,
    with_tuned,
)

CPU = torch.device("cpu")
SIZES = (32, 48, 64)
CHANGES = {"train.memory_format": "contiguous", "train.precision": "fp32", "train.compile": "off"}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


def test_a_choice_is_found_again_with_its_time():
    about = compute_subject(load_spec("v2-b0"), SIZES, CPU)
    assert find_choice(about) is None
    path = keep_choice(about, CHANGES)
    found = find_choice(about)
    assert found is not None
    assert found.changes == CHANGES
    assert json.loads(path.read_text())["measured"] == found.measured
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "other",
    [
        lambda: compute_subject(load_spec("v2-b1"), SIZES, CPU),
        lambda: compute_subject(load_spec("v2-b0"), (32, 64), CPU),
        lambda: loader_subject(Config(), SIZES, CPU),
    ],
)
def test_another_network_size_or_subject_is_another_choice(other):
    keep_choice(compute_subject(load_spec("v2-b0"), SIZES, CPU), CHANGES)
    assert find_choice(other()) is None


def test_another_version_of_torch_is_another_choice(monkeypatch):
    keep_choice(compute_subject(load_spec("v2-b0"), SIZES, CPU), CHANGES)
    monkeypatch.setattr(tuned.torch, "__version__", "99.0")
    assert find_choice(compute_subject(load_spec("v2-b0"), SIZES, CPU)) is None


def test_another_set_of_kernels_is_another_choice(monkeypatch):
    versions = {"numba": "0.68.1"}
    monkeypatch.setattr(tuned, "installed_version", versions.get)
    keep_choice(compute_subject(load_spec("v2-b0"), SIZES, CPU), CHANGES)
    assert find_choice(compute_subject(load_spec("v2-b0"), SIZES, CPU)) is not None
    versions.clear()
    assert find_choice(compute_subject(load_spec("v2-b0"), SIZES, CPU)) is None


def test_kernels_that_were_kept_are_used_unless_the_run_is_compiled():
    before = prepare_experiment(_config())
    about = compute_subject(before.spec, (16, 32), before.device)
    keep_choice(about, CHANGES | {"train.kernels": "numba", "train.memory_format": "channels_last"})
    assert prepare_experiment(_config()).config.train.kernels == "numba"
    compiled = replace(_config(), train=replace(_config().train, compile="default"))
    assert prepare_experiment(compiled).config.train.kernels == "plain"
    plain = replace(_config(), train=replace(_config().train, kernels="plain"))
    assert prepare_experiment(plain).config.train.kernels == "plain"


def test_recorded_passes_that_were_kept_are_for_one_process_alone():
    spec = load_spec("v2-b0")
    keep_choice(compute_subject(spec, SIZES, CPU), {"train.compile": "graphs", "train.kernels": "triton"})

    def train_of(*, is_alone: bool, **train) -> TrainConfig:
        config = Config(train=TrainConfig(**train))
        return with_tuned(config, spec, SIZES, CPU, precision="fp32", is_alone=is_alone).train

    assert train_of(is_alone=True).compile == "graphs"
    assert train_of(is_alone=False).compile == "off"
    # What is asked for stays, and has the kernels that were measured.
    assert train_of(is_alone=False, compile="graphs").compile == "graphs"
    assert train_of(is_alone=True, compile="graphs").kernels == "triton"


def test_classes_and_the_order_of_stages_do_not_matter():
    spec = load_spec("v2-b0")
    keep_choice(compute_subject(spec, SIZES, CPU), CHANGES)
    assert find_choice(compute_subject(replace(spec, num_classes=5), SIZES[::-1], CPU)) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"about": {}, "changes": {}, "measured": ""}'])
def test_a_file_that_is_no_choice_counts_as_none(text):
    about = compute_subject(load_spec("v2-b0"), SIZES, CPU)
    keep_choice(about, CHANGES).write_text(text)
    assert find_choice(about) is None


def test_only_what_is_left_open_is_changed():
    about = loader_subject(Config(), SIZES, CPU)
    keep_choice(about, {"data.workers": 3, "augment.place": "device"})
    choice = find_choice(about)
    chosen = apply_choice(Config(), choice)
    assert (chosen.data.workers, chosen.augment.place) == (3, "device")
    fixed = Config(data=DataConfig(workers=2), augment=AugmentConfig(place="worker"))
    assert apply_choice(fixed, choice) == fixed
    assert apply_choice(Config(), None) == Config()


def test_a_value_that_is_no_longer_allowed_is_ignored():
    about = loader_subject(Config(), SIZES, CPU)
    keep_choice(about, {"augment.place": "moon", "data.workers": 3})
    assert apply_choice(Config(), find_choice(about)) == Config()


def _config() -> Config:
    return Config(
        progressive=ProgressiveConfig(stages=2, image_size=(16, 32)),
        train=TrainConfig(epochs=1.0, batch_size=64, device="cpu"),
    )


def test_a_run_leaves_nothing_open():
    train = prepare_experiment(_config()).config.train
    assert (train.memory_format, train.precision, train.compile) == ("channels_last", "fp32", "off")


def test_recomputed_blocks_are_not_compiled_whatever_was_kept():
    before = prepare_experiment(_config())
    keep_choice(compute_subject(before.spec, (16, 32), before.device), CHANGES | {"train.compile": "default"})
    assert prepare_experiment(_config()).config.train.compile == "default"
    recomputing = replace(_config(), model=ModelConfig(gradient_checkpointing=True))
    resolved = prepare_experiment(recomputing).config.train
    assert (resolved.compile, resolved.memory_format) == ("off", "contiguous")


def test_a_run_uses_what_was_kept_and_its_continuation_keeps_it():
    before = prepare_experiment(_config())
    about = compute_subject(before.spec, (16, 32), before.device)
    keep_choice(about, CHANGES)
    keep_choice(
        loader_subject(before.config, (16, 32), before.device),
        {"data.workers": 1, "augment.place": "device"},
    )
    config = prepare_experiment(_config()).config
    assert config.train.memory_format == "contiguous"
    assert (config.data.workers, config.augment.place) == (1, "device")
    keep_choice(about, CHANGES | {"train.memory_format": "channels_last"})
    assert prepare_experiment(config).config.train.memory_format == "contiguous"
