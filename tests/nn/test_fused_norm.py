from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch import nn

from effnet.arch import NetworkSpec, StageSpec
from effnet.kernels import dispatch
from effnet.nn import EfficientNet
from effnet.nn.layers import ConvNorm
from effnet.nn.shared_norm import SharedBatchNorm2d


@pytest.fixture(autouse=True)
def plain_passes(request, monkeypatch):
    """The interpreter is slow; one test has it nevertheless."""
    if "in_triton" not in request.node.name:
        monkeypatch.setattr(dispatch, "has_triton", lambda: False)


EXACT = {"rtol": 1e-8, "atol": 1e-8}


def tiny(**changes: object) -> NetworkSpec:
    """A network with every kind of block, few channels, and none that is a multiple of 8 in the middle."""
    kernels = {"kernel_size": 3, "channels": 5, "repeats": 2}
    stages = (
        StageSpec(operation="conv", stride=1, expand_ratio=1, **kernels),
        StageSpec(operation="fused_mbconv", stride=2, expand_ratio=2, **kernels),
        StageSpec(operation="fused_mbconv", stride=1, expand_ratio=2, se_ratio=0.5, **kernels),
        StageSpec(operation="fused_mbconv", stride=1, expand_ratio=1, se_ratio=0.5, **kernels),
        StageSpec(operation="mbconv", stride=2, expand_ratio=1, **kernels),
        StageSpec(
            operation="mbconv", stride=1, expand_ratio=3, se_ratio=0.25, **kernels | {"kernel_size": 5}
        ),
        StageSpec(operation="bottleneck", stride=2, expand_ratio=2, **kernels | {"channels": 6}),
        StageSpec(operation="separable", stride=1, expand_ratio=1, **kernels),
    )
    widths = {"stem_channels": 5, "head_channels": 9, "num_classes": 4}
    return replace(NetworkSpec(name="tiny", stages=stages, image_size=33, train_size=33, **widths), **changes)


def network(spec: NetworkSpec, *, kernels: str = "triton", **options: bool) -> EfficientNet:
    torch.manual_seed(0)
    model = EfficientNet(spec, kernels=kernels, **options).double().to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    model.set_drop_path(0.5)
    model.set_dropout(0.2)
    return model


def images(count: int = 3, size: int = 33) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 3, size, size, dtype=torch.float64).to(memory_format=torch.channels_last)


def learned(model: EfficientNet, size: int = 33) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return logits and gradients of a training step."""
    pixels = images(size=size)
    torch.manual_seed(2)
    logits = model(pixels)
    logits.square().sum().backward()
    return logits, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def assert_equal_steps(one: EfficientNet, other: EfficientNet) -> None:
    torch.testing.assert_close(learned(one), learned(other), **EXACT)
    assert list(one.state_dict()) == list(other.state_dict())
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), **EXACT)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_a_step_with_kernels_is_the_same_step(padding, activation):
    spec = tiny(padding=padding, activation=activation)
    plain, fused = network(spec, kernels="plain"), network(spec)
    assert_equal_steps(plain, fused)
    # Another step, on statistics that have moved.
    assert_equal_steps(plain, fused)


def test_a_step_with_kernels_in_triton_is_the_same_step():
    if not (dispatch.has_triton() and dispatch.is_interpreted()):
        pytest.skip("Triton is not installed, or not interpreted")
    spec = tiny(stages=tiny().stages[5:6], head_channels=0)
    torch.testing.assert_close(learned(network(spec, kernels="plain"), 9), learned(network(spec), 9), **EXACT)


def test_kernels_compute_all_norms_of_an_efficientnet(monkeypatch):
    def refuse(*_):
        raise AssertionError("batch norm on its own")

    monkeypatch.setattr(nn.BatchNorm2d, "forward", refuse)
    learned(network(tiny()))
    with pytest.raises(AssertionError, match="on its own"):
        learned(network(tiny(activation="relu")))


def test_evaluation_is_bit_for_bit_what_it_was():
    plain, fused = network(tiny(), kernels="plain").eval(), network(tiny()).eval()
    assert torch.equal(plain(images()), fused(images()))


@pytest.mark.parametrize("momentum", [0.0, 0.3, None])
def test_moving_statistics_follow_the_momentum(momentum):
    plain, fused = network(tiny(), kernels="plain"), network(tiny())
    for model in (plain, fused):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
    for _ in range(3):
        assert_equal_steps(plain, fused)


def test_frozen_norms_stay_as_they_are():
    plain, fused = network(tiny(), kernels="plain"), network(tiny())
    for model in (plain, fused):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    assert_equal_steps(plain, fused)


def test_recomputed_blocks_move_their_statistics_once():
    assert_equal_steps(network(tiny(), kernels="plain"), network(tiny(), gradient_checkpointing=True))


def test_a_norm_of_several_processes_is_left_alone():
    model = network(tiny())
    conv_norm = model.get_submodule("stages.4.0.depthwise")
    assert isinstance(conv_norm, ConvNorm)
    conv_norm.norm = SharedBatchNorm2d.replacing(conv_norm.norm, None)
    with pytest.raises(ValueError, match="rocess group"):
        learned(model)


def test_one_value_a_channel_is_refused_as_ever():
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        network(tiny())(images(1, 2))


def test_mixed_precision_is_no_further_from_the_truth_than_without_kernels():
    pixels, found = images(4, 17).float(), {}
    for name, kernels, is_mixed in (
        ("exact", "plain", False),
        ("plain", "plain", True),
        ("fused", "triton", True),
    ):
        model = network(tiny(), kernels=kernels).float()
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            logits = model(pixels)
        logits.float().square().sum().backward()
        found[name] = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    distances = {name: (found[name] - found["exact"]).norm() for name in ("plain", "fused")}
    assert 0 < distances["fused"] < 1.5 * distances["plain"] < found["exact"].norm()


def test_the_compiler_sees_one_graph():
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        spec = tiny(stages=tiny().stages[5:6])
        plain, fused = network(spec, kernels="plain"), network(spec)
        fused.compile(backend="aot_eager", fullgraph=True, dynamic=False)
        assert_equal_steps(plain, fused)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_shapes_are_known_without_values():
    with torch.device("meta"):
        model = EfficientNet(tiny(), kernels="triton")
        assert model(torch.empty(2, 3, 33, 33)).shape == (2, 4)


def test_less_is_kept_for_the_backward_pass():
    kept = {}
    for kernels in ("plain", "triton-norm"):
        tensors = {}

        def note(tensor, tensors=tensors):
            tensors[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        model, pixels = network(tiny(), kernels=kernels), images()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(pixels)
        kept[kernels] = sum(tensor.nbytes for tensor in tensors.values())
    assert kept["triton-norm"] < 0.8 * kept["plain"]


def test_a_step_by_numba_is_the_same_step(monkeypatch):
    pytest.importorskip("numba", reason="it comes with the extra 'cpu'")
    monkeypatch.setattr(dispatch, "SMALLEST_FOR_NUMBA", 0)
    plain, fused = network(tiny(), kernels="plain"), network(tiny(), kernels="numba")
    for momentum in (0.3, 0.0, None):
        for model in (plain, fused):
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = momentum
        assert_equal_steps(plain, fused)

    def refuse(*_):
        raise AssertionError("batch norm on its own")

    monkeypatch.setattr(nn.BatchNorm2d, "forward", refuse)
    learned(fused)


def test_what_numba_does_not_know_or_is_too_small_stays_with_torch(monkeypatch):
    monkeypatch.setattr(dispatch, "has_numba", lambda: True)
    x = torch.zeros(2, 8, 64, 64).to(memory_format=torch.channels_last)
    assert dispatch.runs_by_numba(x, None, x)
    assert not dispatch.runs_by_numba(x.contiguous())
    assert not dispatch.runs_by_numba(x.bfloat16())
    assert not dispatch.runs_by_numba(x, x.double())
    assert not dispatch.runs_by_numba(x[:1])
    assert not dispatch.runs_by_numba(x.to("meta"))
    monkeypatch.setattr(dispatch, "has_numba", lambda: False)
    assert not dispatch.runs_by_numba(x)
