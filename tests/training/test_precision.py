"""Training in fp16, where gradients are too small without a factor and too large with too big a one."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.amp import GradScaler

from effnet.api import resume_run, start_run
from effnet.config import Config, DistributedConfig, OptimizerConfig
from effnet.errors import UserError
from effnet.training import loop
from effnet.training import step as step_module
from effnet.training.experiment import prepare_experiment
from effnet.training.keeper import checkpoints_in
from effnet.training.loop import InterruptedRunError
from effnet.training.step import TrainState, initial_state, set_phase, train_step
from effnet.weights.storage import read_metadata


def fp16(config: Config, **changes: Any) -> Config:
    return replace(config, train=replace(config.train, precision="fp16", **changes))


def last_checkpoint(run: Path) -> Path:
    return list(checkpoints_in(run / "checkpoints").values())[-1]


def before_each_step(monkeypatch, call: Callable[[TrainState, int], None]) -> None:
    real = loop.train_step

    def step(state, batch, experiment) -> Tensor:
        call(state, batch.step)
        return real(state, batch, experiment)

    monkeypatch.setattr(loop, "train_step", step)


def test_a_resumed_run_in_fp16_has_the_same_scale_and_skips_the_same_steps(digits_run, tmp_path, monkeypatch):
    # Gradients overflow until the scale has been halved a few times, and it is doubled soon.
    scaler = partial(GradScaler, init_scale=2.0**26, growth_interval=3)
    monkeypatch.setattr(step_module, "GradScaler", scaler)
    scales, classifiers = [], []

    def look(state, step) -> None:
        scales.append(state.scaler.get_scale())
        classifiers.append(state.model.classifier.weight.detach().clone())
        if step == 3 and len(scales) > 10:
            signal.raise_signal(signal.SIGTERM)

    before_each_step(monkeypatch, look)
    start_run(fp16(digits_run), tmp_path / "whole", quiet=True)
    with pytest.raises(InterruptedRunError, match="step 4 of 10"):
        start_run(fp16(digits_run), tmp_path / "run", quiet=True)
    resume_run(tmp_path / "run", quiet=True)

    assert scales[10:] == scales[:10]
    is_skipped = [torch.equal(*pair) for pair in pairwise(classifiers[:10])]
    assert is_skipped == [after < before for before, after in pairwise(scales[:10])]
    assert True in is_skipped
    assert False in is_skipped
    assert scales[4] != scales[0]
    tensors = [load_file(last_checkpoint(tmp_path / name)) for name in ("whole", "run")]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
    kept = [read_metadata(last_checkpoint(tmp_path / name))["extra"]["scaler"] for name in ("whole", "run")]
    assert kept[0] == kept[1]
    assert kept[0]["scale"] != 2.0**26


def one_step(config: Config) -> Tensor:
    """Return by how much the first step moves the weights of the stem."""
    experiment = prepare_experiment(config)
    state, settings = initial_state(experiment), experiment.schedule.stages[0]
    set_phase(state, experiment, settings, is_head_only=False)
    before = state.model.stem.conv.weight.detach().clone()
    train_step(state, next(loop.run_batches(experiment, experiment.schedule, seed=0)), experiment)
    return before - state.model.stem.conv.weight.detach()


@pytest.mark.parametrize(
    "clip", [{"gradient_clip": 0.05}, {"adaptive_clip": 0.01}], ids=["global", "adaptive"]
)
def test_gradients_are_clipped_at_their_own_size(digits_run, clip):
    sgd = replace(digits_run, optimizer=OptimizerConfig(name="sgd", momentum=0.0, weight_decay=0.0))
    expected = one_step(replace(sgd, train=replace(sgd.train, precision="fp32", **clip)))
    update = one_step(fp16(sgd, **clip))
    assert expected.norm() > 0
    assert (update - expected).norm() < 0.02 * expected.norm()


def test_only_fp16_scales_the_loss(digits_run):
    for precision, autocast in (("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        config = replace(digits_run, train=replace(digits_run.train, precision=precision))
        experiment = prepare_experiment(config)
        assert experiment.autocast == autocast
        assert initial_state(experiment).scaler.is_enabled() == (precision == "fp16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.precision": "fp16"}, "train.precision 'fp16'; use bf16"),
        ({"train.adaptive_clip": 0.1}, "train.adaptive_clip; use train.gradient_clip"),
        ({"optimizer.name": "lamb"}, "optimizer.name 'lamb'; use another one"),
        ({"optimizer.name": "lars"}, "optimizer.name 'lars'; use another one"),
    ],
)
def test_what_needs_whole_weights_is_refused_where_they_are_cut(digits_run, changes, message):
    config, processes = digits_run, replace(prepare_experiment(digits_run).processes, count=2)
    for key, value in changes.items():
        section, name = key.split(".")
        config = replace(config, **{section: replace(getattr(config, section), **{name: value})})
    prepare_experiment(config, processes=processes)
    cut = replace(config, distributed=DistributedConfig(strategy="fsdp"))
    with pytest.raises(UserError, match=f"'fsdp' does not go with {message}, or the strategy 'ddp'"):
        prepare_experiment(cut, processes=processes)
