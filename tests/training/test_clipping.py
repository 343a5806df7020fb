import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from effnet.config import TrainConfig
from effnet.training.clipping import clip_adaptively, clip_gradients

SHAPES = [(4, 3, 3, 3), (6, 1, 3, 3), (9, 4, 1, 1), (4, 27), (4,), (27,), ()]


def transcribed_clipping(weight, gradient, factor):
    """The authors' rule, unit by unit."""
    units = [weight] if weight.ndim <= 1 else list(weight)
    clipped = []
    for unit, part in zip(units, [gradient] if weight.ndim <= 1 else list(gradient), strict=True):
        limit = factor * max(np.sqrt((unit**2).sum()), 1e-3)
        length = np.sqrt((part**2).sum())
        clipped.append(part * limit / max(length, 1e-6) if length > limit else part)
    return clipped[0] if weight.ndim <= 1 else np.stack(clipped)


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1e-3, 2.0), channels_last=st.booleans())
def test_clipping_equals_a_transcription(seed, factor, channels_last):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) * rng.choice([0.0, 0.01, 1.0]) for shape in SHAPES]
    gradients = [rng.normal(size=shape) * rng.choice([0.0, 1e-9, 0.1, 10.0]) for shape in SHAPES]
    params = []
    for weight, gradient in zip(weights, gradients, strict=True):
        param = nn.Parameter(torch.tensor(weight))
        if channels_last and param.ndim == 4:
            param.data = param.data.to(memory_format=torch.channels_last)
        param.grad = torch.tensor(gradient)
        params.append(param)

    clip_adaptively(params, factor)

    for param, weight, gradient in zip(params, weights, gradients, strict=True):
        expected = transcribed_clipping(weight, gradient, factor)
        np.testing.assert_allclose(param.grad.numpy(), expected, rtol=1e-12, atol=1e-18)
        assert np.array_equal(param.detach().numpy(), weight)


def test_gradients_within_the_limit_are_left_as_they_are():
    param = nn.Parameter(torch.ones(2, 3))
    param.grad = torch.tensor([[0.1, 0.2, 0.3], [1.0, 1.0, 1.0]])
    before = param.grad.clone()
    clip_adaptively([param, nn.Parameter(torch.ones(2))], 0.5)
    assert torch.equal(param.grad[0], before[0])
    torch.testing.assert_close(param.grad[1], before[1] / 2)


def test_the_classifier_is_not_clipped_adaptively(make_network, backward):
    network = make_network()
    backward(network, 0)
    before = {name: param.grad.clone() for name, param in network.named_parameters()}
    clip_gradients(network, TrainConfig(adaptive_clip=1e-4))
    same = {name for name, param in network.named_parameters() if torch.equal(param.grad, before[name])}
    # The bias before a batch norm has no gradient that could be too long.
    assert same - {"stem.bias"} == {"classifier.weight", "classifier.bias"}


def test_adaptive_clipping_comes_before_the_limit_of_the_whole(make_network, backward):
    network, alone = make_network(), make_network()
    backward(network, 0)
    backward(alone, 0)
    clip_gradients(network, TrainConfig(adaptive_clip=0.01, gradient_clip=0.1))
    clip_gradients(alone, TrainConfig(adaptive_clip=0.01))
    length = torch.stack([param.grad.norm() for param in alone.parameters()]).norm()
    for param, other in zip(network.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(param.grad, other.grad * 0.1 / length, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("config", [TrainConfig(), TrainConfig(gradient_clip=1e9)])
def test_nothing_is_clipped_unless_it_is_asked_for(make_network, backward, config):
    network = make_network()
    backward(network, 0)
    before = [param.grad.clone() for param in network.parameters()]
    clip_gradients(network, config)
    assert all(torch.equal(param.grad, b) for param, b in zip(network.parameters(), before, strict=True))
