import signal
from dataclasses import replace
from importlib import import_module
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from effnet.api import resume_run, start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import Config, OptimizerConfig
from effnet.kernels import dispatch
from effnet.native import has_numba
from effnet.nn import Network
from effnet.training import loop
from effnet.training.batches import noise_batch
from effnet.training.experiment import prepare_experiment
from effnet.training.keeper import checkpoints_in
from effnet.training.loop import InterruptedRunError
from effnet.training.step import initial_state, set_phase, train_step

STEPS = 10
"""Of the run of `digits_run`."""


def model_after_a_step(config: Config, kernels: str) -> tuple[float, Network]:
    sgd = OptimizerConfig(name="sgd", momentum=0.0)
    experiment = prepare_experiment(
        replace(config, optimizer=sgd, train=replace(config.train, kernels=kernels))
    )
    state, settings = initial_state(experiment), experiment.schedule.stages[0]
    set_phase(state, experiment, settings, is_head_only=False)
    loss = train_step(state, noise_batch(experiment, settings, settings.batch_size), experiment)
    assert state.model.stages[0][0].kernels == kernels
    return loss.item(), state.model


def weights_after_a_step(config: Config, kernels: str) -> tuple[float, dict[str, torch.Tensor]]:
    loss, model = model_after_a_step(config, kernels)
    return loss, model.state_dict()


@pytest.mark.parametrize("kernels", ["triton-norm", "triton"])
def test_a_training_step_with_kernels_is_the_same_up_to_rounding(digits_run, monkeypatch, kernels):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    plain, fused = (weights_after_a_step(digits_run, name) for name in ("plain", kernels))
    assert fused[0] == pytest.approx(plain[0], rel=1e-5)
    torch.testing.assert_close(fused[1], plain[1], rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not has_numba(), reason="needs the extra 'cpu'")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_step_by_numba_is_the_same_up_to_rounding(digits_run, monkeypatch, precision):
    from effnet.kernels import depthwise_numba

    convolutions = watch_calls(monkeypatch, depthwise_numba, "convolve")
    config = replace(digits_run, train=replace(digits_run.train, precision=precision))
    plain, fused = (model_after_a_step(config, name) for name in ("plain", "numba"))
    assert convolutions
    # Much of what is rounded to bf16 is next to 0 by its nature, as the gradients in front of a norm.
    tolerance, compared = (1e-4, "") if precision == "fp32" else (0.15, "depthwise.conv.weight")
    assert fused[0] == pytest.approx(plain[0], rel=tolerance)
    named = dict(fused[1].named_parameters())
    for name, param in plain[1].named_parameters():
        if compared in name:
            assert (named[name].grad - param.grad).norm() <= tolerance * param.grad.norm(), name


def test_kernels_are_left_open_by_default(digits_run):
    assert digits_run.train.kernels == "auto"


def watch_calls(monkeypatch, module: ModuleType, name: str) -> list[None]:
    """Return a list that grows by each call of a function."""
    real, calls = getattr(module, name), []

    def call(*given, **settings):
        calls.append(None)
        return real(*given, **settings)

    monkeypatch.setattr(module, name, call)
    return calls


@pytest.mark.skipif(not has_numba(), reason="Numba is not installed; it comes with the extra 'cpu'")
def test_a_run_by_numba_that_is_interrupted_and_resumed_is_the_same_bit_by_bit(
    digits_run, tmp_path, monkeypatch
):
    """Depthwise convolution at stride 2 and of 5 x 5, batch norm with a gate and with a sum, and RMSprop."""
    monkeypatch.setattr(dispatch, "SMALLEST_FOR_NUMBA", 0)
    names = {
        "depthwise_numba": ["convolve"],
        "norm_numba": ["batch_norm_act", "batch_norm_act_squeeze_excite"],
        "numba_rmsprop": ["update"],
    }
    called = [
        watch_calls(monkeypatch, import_module(f"effnet.kernels.{module}"), name)
        for module, functions in names.items()
        for name in functions
    ]
    stages = tuple(
        StageSpec(
            operation="mbconv",
            kernel_size=size,
            stride=2,
            expand_ratio=2,
            channels=8,
            repeats=2,
            se_ratio=0.5,
        )
        for size in (3, 5)
    )
    spec = NetworkSpec(
        name="tiny", stages=stages, stem_channels=8, head_channels=8, image_size=16, train_size=16
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    config = replace(
        digits_run,
        train=replace(digits_run.train, kernels="numba", precision="fp32"),
        optimizer=OptimizerConfig(name="rmsprop_tf"),
        progressive=replace(digits_run.progressive, image_size=(16, 16), drop_path_rate=(0.2, 0.2)),
    )
    start_run(config, tmp_path / "whole", quiet=True)
    assert all(len(calls) >= STEPS for calls in called)

    real, seen = loop.train_step, []

    def step(state, batch, experiment):
        seen.append(batch.step)
        if batch.step == 3 and len(seen) == 4:
            signal.raise_signal(signal.SIGTERM)
        return real(state, batch, experiment)

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(InterruptedRunError, match="step 4 of 10"):
        start_run(config, tmp_path / "run", quiet=True)
    resume_run(tmp_path / "run", quiet=True)
    assert seen == list(range(STEPS))
    whole, resumed = (
        load_file(list(checkpoints_in(tmp_path / name / "checkpoints").values())[-1])
        for name in ("whole", "run")
    )
    assert whole.keys() == resumed.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, resumed[name])] == []
