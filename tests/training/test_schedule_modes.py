"""Runs whose image size is drawn or grows in many small stages."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from effnet.api import resume_run, start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import AugmentConfig, Config, DataConfig, ModelConfig, ProgressiveConfig, TrainConfig
from effnet.training import loop
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
