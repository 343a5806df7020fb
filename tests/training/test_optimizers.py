import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from effnet.arch.io import load_spec
from effnet.config import OptimizerConfig
from effnet.errors import UserError
from effnet.nn import EfficientNet
from effnet.training.optimizers import (
    RMSpropTF,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    parameter_groups,
    set_learning_rate,
)

CONFIGS = [
    OptimizerConfig(weight_decay=0.01),
    OptimizerConfig(weight_decay=0.01, weight_decay_mode="decoupled"),
    OptimizerConfig(name="sgd", weight_decay=0.01),
    OptimizerConfig(name="sgd", weight_decay=0.01, nesterov=True),
    OptimizerConfig(name="adamw", weight_decay=0.01),
    OptimizerConfig(name="adamw", weight_decay=0.01, weight_decay_mode="decoupled"),
    OptimizerConfig(name="lamb", weight_decay=0.01),
    OptimizerConfig(name="lamb", weight_decay=0.01, weight_decay_mode="decoupled"),
    OptimizerConfig(name="lars", weight_decay=0.01),
    OptimizerConfig(name="lars", weight_decay=0.01, nesterov=True),
]
IDS = [
    f"{config.name}-{config.weight_decay_mode}{'-nesterov' if config.nesterov else ''}" for config in CONFIGS
]


def transcribed_rmsprop(weight, gradients, rates, *, weight_decay, mode):
    """TensorFlow's update, scalar by scalar in the order of its documentation."""
    mean_square, momentum = np.ones_like(weight), np.zeros_like(weight)
    for given, rate in zip(gradients, rates, strict=True):
        gradient = given + weight_decay * weight if mode == "l2" else given
        if mode == "decoupled":
            weight = weight - rate * weight_decay * weight
        mean_square = mean_square + (gradient**2 - mean_square) * (1 - 0.9)
        momentum = 0.8 * momentum + rate * gradient / np.sqrt(mean_square + 1e-3)
        weight = weight - momentum
    return weight


@pytest.mark.parametrize("mode", ["l2", "decoupled"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_rmsprop_equals_a_transcription_of_tensorflows(mode, weight_decay):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 4)), rng.normal(size=5)]
    gradients = [rng.normal(size=(100, *weight.shape)) * 0.1 for weight in weights]
    rates = np.linspace(0.0, 0.05, 100)

    params = [nn.Parameter(torch.tensor(weight)) for weight in weights]
    optimizer = RMSpropTF(params, lr=0.0, momentum=0.8, weight_decay=weight_decay, weight_decay_mode=mode)
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = float(rate)
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = torch.tensor(gradient[step])
        optimizer.step()

    for param, weight, gradient in zip(params, weights, gradients, strict=True):
        expected = transcribed_rmsprop(weight, gradient, rates, weight_decay=weight_decay, mode=mode)
        np.testing.assert_allclose(param.detach().numpy(), expected, rtol=1e-12, atol=1e-14)


def length(tensor):
    return np.sqrt((tensor**2).sum())


def transcribed_lamb(weight, gradients, rates, config, *, decays):
    """1904.00962, Algorithm 2, without the bias correction that its third version dropped."""
    decay = config.weight_decay if decays else 0.0
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for gradient, rate in zip(gradients, rates, strict=True):
        if config.weight_decay_mode == "decoupled":
            weight = weight - rate * decay * weight
        first = 0.9 * first + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient**2
        update = first / (np.sqrt(second) + config.epsilon)
        if config.weight_decay_mode == "l2":
            update = update + decay * weight
        trust = min(length(weight), 10) / (length(update) + config.epsilon) if decays else 1.0
        weight = weight - rate * trust * update
    return weight


def transcribed_lars(weight, gradients, rates, config, *, decays):
    """1708.03888, Algorithm 1, with the rate outside the momentum."""
    momentum = np.zeros_like(weight)
    for given, rate in zip(gradients, rates, strict=True):
        gradient = given
        if decays:
            lengths = length(given) + config.weight_decay * length(weight)
            trust = config.trust_coefficient * length(weight) / lengths
            gradient = trust * (given + config.weight_decay * weight)
        momentum = config.momentum * momentum + gradient
        weight = weight - rate * (gradient + config.momentum * momentum if config.nesterov else momentum)
    return weight


@pytest.mark.parametrize(
    ("config", "transcribed"),
    [
        (OptimizerConfig(name="lamb", betas=(0.9, 0.99), epsilon=1e-6, weight_decay=0.1), transcribed_lamb),
        (
            OptimizerConfig(name="lamb", betas=(0.9, 0.99), weight_decay=0.1, weight_decay_mode="decoupled"),
            transcribed_lamb,
        ),
        (OptimizerConfig(name="lars", momentum=0.8, weight_decay=0.1), transcribed_lars),
        (OptimizerConfig(name="lars", weight_decay=0.1, nesterov=True), transcribed_lars),
    ],
    ids=["lamb-l2", "lamb-decoupled", "lars", "lars-nesterov"],
)
def test_layerwise_rules_equal_transcriptions_and_leave_norms_and_biases_alone(
    make_network, config, transcribed
):
    rng = np.random.default_rng(0)
    network = make_network().double()
    before = {name: param.detach().numpy().copy() for name, param in network.named_parameters()}
    gradients = {name: rng.normal(size=(20, *weight.shape)) for name, weight in before.items()}
    rates = np.linspace(0.0, 0.5, 20)

    optimizer = build_optimizer(network, config, backbone_rate=1.0)
    for step, rate in enumerate(rates):
        set_learning_rate(optimizer, float(rate))
        for name, param in network.named_parameters():
            param.grad = torch.tensor(gradients[name][step])
        optimizer.step()

    for name, param in network.named_parameters():
        decays = name in {"stem.weight", "classifier.weight"}
        expected = transcribed(before[name], gradients[name], rates, config, decays=decays)
        np.testing.assert_allclose(param.detach().numpy(), expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_rmsprop_differs_from_torchs():
    ours, torchs = (nn.Parameter(torch.ones(3)) for _ in range(2))
    first = RMSpropTF([ours], lr=0.1)
    second = torch.optim.RMSprop([torchs], lr=0.1, alpha=0.9, momentum=0.9, eps=1e-3)
    for param, optimizer in ((ours, first), (torchs, second)):
        param.grad = torch.full((3,), 0.1)
        optimizer.step()
    assert not torch.allclose(ours, torchs, rtol=0.1)


def test_rmsprop_leaves_a_parameter_without_gradient_alone():
    still, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = RMSpropTF([still, moving], lr=0.1, weight_decay=0.1, weight_decay_mode="decoupled")
    moving.grad = torch.ones(2)
    optimizer.step()
    assert still.tolist() == [1, 1]
    assert moving[0] < 1


@pytest.mark.parametrize(
    ("exclude", "decayed"),
    [
        ("norm_and_bias", {"stem.weight", "classifier.weight"}),
        ("norm", {"stem.weight", "stem.bias", "classifier.weight", "classifier.bias"}),
        (
            "none",
            {
                "stem.weight",
                "stem.bias",
                "norm.weight",
                "norm.bias",
                "classifier.weight",
                "classifier.bias",
            },
        ),
    ],
)
def test_groups_follow_the_exclusion_rule(make_network, exclude, decayed):
    network = make_network()
    config = OptimizerConfig(weight_decay=0.5, weight_decay_exclude=exclude)
    groups = parameter_groups(network, config, backbone_rate=0.1)
    assert {name for group in groups if group["weight_decay"] for name in group["names"]} == decayed
    assert {group["weight_decay"] for group in groups} <= {0.0, 0.5}


def test_groups_hold_each_parameter_once_under_its_name(make_network):
    network = make_network()
    groups = parameter_groups(network, OptimizerConfig(), backbone_rate=0.1)
    pairs = [pair for group in groups for pair in zip(group["names"], group["params"], strict=True)]
    expected = dict(network.named_parameters())
    assert len(pairs) == len(expected)
    assert all(expected[name] is param for name, param in pairs)


def test_learning_rate_of_the_backbone_is_scaled(make_network):
    optimizer = build_optimizer(make_network(), OptimizerConfig(), backbone_rate=0.1)
    set_learning_rate(optimizer, 0.5)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates.pop("classifier.weight") == rates.pop("classifier.bias") == 0.5
    assert set(rates.values()) == {0.05}


def test_rates_fall_with_the_distance_from_the_classifier(make_network):
    optimizer = build_optimizer(make_network(), OptimizerConfig(), backbone_rate=0.5, layer_decay=0.5)
    set_learning_rate(optimizer, 0.8)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
    assert rates == {
        "stem.weight": 0.1,
        "stem.bias": 0.1,
        "norm.weight": 0.2,
        "norm.bias": 0.2,
        "classifier.weight": 0.8,
        "classifier.bias": 0.8,
    }


def test_every_stage_of_a_network_has_its_own_rate():
    spec = replace(load_spec("v2-b0"), num_classes=2)
    with torch.device("meta"):
        network = EfficientNet(spec)
    groups = parameter_groups(network, OptimizerConfig(), backbone_rate=1.0, layer_decay=0.9)
    powers = {
        name.split(".")[0] if not name.startswith("stages") else name[:8]: round(
            math.log(group["rate_scale"], 0.9)
        )
        for group in groups
        for name in group["names"]
    }
    assert powers == {
        "stem": 8,
        "stages.0": 7,
        "stages.1": 6,
        "stages.2": 5,
        "stages.3": 4,
        "stages.4": 3,
        "stages.5": 2,
        "head": 1,
        "classifier": 0,
    }
    # With and without decay.
    assert len(groups) == 2 * len(powers)


@pytest.mark.parametrize("config", CONFIGS, ids=IDS)
def test_restored_optimizer_continues_bit_for_bit(make_network, backward, config):
    def run(network, optimizer, steps):
        for step in steps:
            backward(network, step)
            set_learning_rate(optimizer, 0.01 * (1 + step))
            optimizer.step()

    network = make_network()
    optimizer = build_optimizer(network, config, backbone_rate=0.5, layer_decay=0.9)
    run(network, optimizer, range(3))
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    restored = make_network(seed=1)
    restored.load_state_dict(network.state_dict())
    other = build_optimizer(restored, config, backbone_rate=0.5, layer_decay=0.9)
    load_optimizer_tensors(other, saved)

    run(network, optimizer, range(3, 6))
    run(restored, other, range(3, 6))
    for name, tensor in restored.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name
    before, after = optimizer_tensors(optimizer), optimizer_tensors(other)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert after["stem.weight/" + slot_of(config)].stride() == restored.stem.weight.stride()


def slot_of(config):
    slots = {"rmsprop_tf": "mean_square", "adamw": "exp_avg", "lamb": "exp_avg"}
    return slots.get(config.name, "momentum_buffer")


def test_restored_optimizer_shares_no_memory_with_what_it_was_given(make_network, backward):
    network = make_network()
    optimizer = build_optimizer(network, OptimizerConfig(name="adamw"), backbone_rate=1.0)
    backward(network, 0)
    optimizer.step()
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
    kept = {name: tensor.clone() for name, tensor in saved.items()}
    load_optimizer_tensors(optimizer, saved)
    optimizer.step()
    assert all(torch.equal(saved[name], kept[name]) for name in saved)


def test_decoupled_decay_of_adamw_reaches_the_update(make_network):
    network = make_network()
    config = OptimizerConfig(name="adamw", weight_decay=0.5, weight_decay_mode="decoupled")
    optimizer = build_optimizer(network, config, backbone_rate=1.0)
    set_learning_rate(optimizer, 0.1)
    before = {name: param.detach().clone() for name, param in network.named_parameters()}
    for param in network.parameters():
        param.grad = torch.zeros_like(param)
    optimizer.step()
    torch.testing.assert_close(network.stem.weight.detach(), 0.95 * before["stem.weight"])
    assert torch.equal(network.norm.weight, before["norm.weight"])


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_decoupled_decay_is_refused_where_there_is_none(make_network, name):
    config = OptimizerConfig(name=name, weight_decay_mode="decoupled")
    with pytest.raises(UserError, match=rf"'{name}' has no .* 'decoupled'; use mode 'l2'"):
        build_optimizer(make_network(), config, backbone_rate=1.0)


def test_lars_with_decay_of_biases_is_refused(make_network):
    config = OptimizerConfig(name="lars", weight_decay_exclude="norm")
    with pytest.raises(UserError, match=r"'lars' decays no biases .* is 'norm'; use 'norm_and_bias'"):
        build_optimizer(make_network(), config, backbone_rate=1.0)


@pytest.mark.parametrize(("name", "momentum"), [("adamw", 0.9), ("sgd", 0.0)])
def test_nesterov_without_momentum_is_refused(name, momentum):
    with pytest.raises(ValueError, match=rf"needs the optimizer sgd or lars with momentum, got {name}"):
        OptimizerConfig(name=name, momentum=momentum, nesterov=True)


def test_state_of_an_unknown_parameter_is_refused(make_network):
    optimizer = build_optimizer(make_network(), OptimizerConfig(), backbone_rate=1.0)
    with pytest.raises(UserError, match=r"unknown parameter 'stem.wait'; did you mean 'stem.weight'\?"):
        load_optimizer_tensors(optimizer, {"stem.wait/momentum": torch.zeros(4, 3, 3, 3)})


def test_state_of_another_shape_is_refused(make_network):
    optimizer = build_optimizer(make_network(), OptimizerConfig(), backbone_rate=1.0)
    with pytest.raises(UserError, match=r"'stem.bias/momentum' has shape \[9\], its parameter has \[4\]"):
        load_optimizer_tensors(optimizer, {"stem.bias/momentum": torch.zeros(9)})
