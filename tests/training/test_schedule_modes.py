"""Runs whose image size is drawn or grows in many small stages."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from effnet.api import resume_run, start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EmaConfig,
    ModelConfig,
    ProgressiveConfig,
    TrainConfig,
)
from effnet.training import loop
from effnet.training.ema import Ema
from effnet.training.experiment import prepare_experiment
from effnet.training.journal import read_metrics
from effnet.training.keeper import checkpoints_in
from effnet.training.loop import InterruptedRunError

MODES = {
    "random": ProgressiveConfig(
        mode="random", image_size=(8, 16), size_multiple=4, redraw_epochs=0.1, cooldown_epochs=0.1
    ),
    "linear": ProgressiveConfig(mode="linear", image_size=(8, 16)),
}


@pytest.fixture(params=MODES)
def config(request, tmp_path, monkeypatch) -> Config:
    """11 steps of digits."""
    monkeypatch.setattr(loop, "plot_schedule", lambda *_: None)
    monkeypatch.setattr(loop, "plot_learning_curve", lambda *_: None)
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=8, image_size=16, train_size=16
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    return Config(
        model=ModelConfig(network=str(tmp_path / "tiny.json")),
        data=DataConfig(source="digits", workers=2),
        augment=AugmentConfig(operations=1, policy="relative"),
        progressive=replace(MODES[request.param], mixup_alpha=(0.0, 0.4), dropout_rate=(0.0, 0.4)),
        train=TrainConfig(epochs=0.5, batch_size=64),
    )


def test_every_step_has_the_size_and_the_rates_of_its_stage_and_a_resumed_run_is_the_same(
    config, tmp_path, monkeypatch
):
    schedule, real, seen = prepare_experiment(config).schedule, loop.train_step, []

    def look(state, batch, experiment):
        seen.append((batch.step, batch.images.shape[1], round(float(state.model.dropout.rate), 5)))
        if batch.step == 6 and len(seen) < 12:
            signal.raise_signal(signal.SIGTERM)
        return real(state, batch, experiment)

    monkeypatch.setattr(loop, "train_step", look)
    with pytest.raises(InterruptedRunError, match="step 7 of 11"):
        start_run(config, tmp_path / "resumed", quiet=True)
    resume_run(tmp_path / "resumed", quiet=True)
    expected = [
        (step, schedule.at(step).image_size, round(schedule.at(step).dropout_rate, 5)) for step in range(11)
    ]
    assert seen == expected
    assert len({size for _, size, _ in seen}) > 2
    start_run(config, tmp_path / "whole", quiet=True)
    last = [
        load_file(list(checkpoints_in(tmp_path / run / "checkpoints").values())[-1])
        for run in ("resumed", "whole")
    ]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())
    # Many stages do not mean many evaluations.
    records = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert [record["step"] for record in records if "val_top1" in record] == [11]


# Batches that grow


def test_steps_of_larger_batches_decay_weights_and_averages_by_their_images(
    digits_run, tmp_path, monkeypatch
):
    config = replace(
        digits_run,
        progressive=ProgressiveConfig(stages=2, image_size=(8, 16), batch_rule="pixels", batch_limit=2.0),
        train=TrainConfig(epochs=1.0, batch_size=160),
        optimizer=replace(digits_run.optimizer, weight_decay=0.08, weight_decay_mode="decoupled"),
        learning_rate=replace(digits_run.learning_rate, batch_scaling="sqrt", schedule="constant"),
        ema=EmaConfig(decay=0.9, warmup=False),
    )
    seen, real = [], Ema.update

    def look(ema, step, reference_steps=1.0):
        seen.append((step, reference_steps))
        real(ema, step, reference_steps)

    monkeypatch.setattr(Ema, "update", look)
    groups, step_of = [], loop.train_step

    def step(state, batch, experiment):
        loss = step_of(state, batch, experiment)
        groups.append(
            {group["decays"]: (group["lr"], group["weight_decay"]) for group in state.optimizer.param_groups}
        )
        return loss

    monkeypatch.setattr(loop, "train_step", step)
    start_run(config, tmp_path / "run", quiet=True)
    # 10 reference steps: 5 are two steps of 320 images, with one lost to rounding, and 5 of 160.
    assert seen == [(0, 2), (2, 2), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1)]
    assert groups[0] == {
        True: pytest.approx((0.01 * 2**0.5, 0.08 * 2**0.5)),
        False: pytest.approx((0.01 * 2**0.5, 0.0)),
    }
    assert groups[-1] == {True: (0.01, 0.08), False: (0.01, 0.0)}
