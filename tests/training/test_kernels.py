from dataclasses import replace

import pytest
import torch

from effnet.config import Config, OptimizerConfig
from effnet.kernels import dispatch
from effnet.nn import Network
from effnet.training.batches import noise_batch
from effnet.training.experiment import prepare_experiment
from effnet.training.step import initial_state, set_phase, train_step


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


@pytest.mark.skipif(not dispatch.has_numba(), reason="needs the extra 'cpu'")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_step_by_numba_is_the_same_up_to_rounding(digits_run, monkeypatch, precision):
    from effnet.kernels import depthwise_numba

    convolutions, compute = [], depthwise_numba.convolve
    monkeypatch.setattr(
        depthwise_numba, "convolve", lambda *x, **y: (convolutions.append(x), compute(*x, **y))[1]
    )
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
