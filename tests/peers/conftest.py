"""The libraries compared with, and networks whose random weights keep activations sane."""

import importlib
import os

import pytest
import torch

from effnet.arch.spec import NetworkSpec
from effnet.nn import EfficientNet
from effnet.weights.names import state_shapes
from effnet.weights.torchvision_operators import declare_torchvision_operators

declare_torchvision_operators()
os.environ.setdefault("KERAS_BACKEND", "torch")


def _peer(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not there: {error}; see `make peers`")


@pytest.fixture(scope="session")
def timm():
    return _peer("timm")


@pytest.fixture(scope="session")
def torchvision():
    return _peer("torchvision")


@pytest.fixture(scope="session")
def keras():
    return _peer("keras")


@pytest.fixture
def make_network():
    """Return a network in evaluation mode with random weights that neither explode nor hide anything."""
    return _make_network


def _make_network(spec: NetworkSpec) -> EfficientNet:
    generator = torch.Generator().manual_seed(0)
    # A random network of a hundred blocks is chaotic: rounding would grow to the size of the logits. With
    # small residual branches it is not, and a wrong one is still far above the tolerance.
    residual = {
        f"stages.{block.stage}.{block.position}.project" for block in spec.blocks() if block.has_residual
    }
    state = {}
    for name, shape in state_shapes(spec).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
        elif len(shape) > 1:
            fan_in = torch.Size(shape[1:]).numel()
            state[name] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        elif name.endswith("norm.weight"):
            size = 0.1 if name.removesuffix(".norm.weight") in residual else 1.0
            state[name] = (torch.rand(shape, generator=generator) + 0.5) * size
        else:
            state[name] = torch.rand(shape, generator=generator) - 0.5
    with torch.device("meta"):  # the largest networks take long to initialise
        network = EfficientNet(spec)
    network.load_state_dict(state, assign=True)
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:  # rates of dropout, which a state dict does not hold
                setattr(module, name, torch.zeros(buffer.shape))
    _calibrate(network.eval(), torch.randn(2, spec.in_channels, 64, 64, generator=generator))
    return network


@torch.no_grad()
def _calibrate(network: EfficientNet, images: torch.Tensor) -> None:
    """Set each norm's statistics, in order, so that what leaves it is of the order of 1."""

    def measure(norm: torch.nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        power = inputs[0].square().mean((0, 2, 3))
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)) * 0.2)
        norm.running_var.copy_((power + power.mean()) / 2)

    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    network(images)
    for hook in hooks:
        hook.remove()


@pytest.fixture
def assert_same_logits():
    """Fail unless the logits differ by less than 1e-4 of their norm, at an even and at an odd size."""

    @torch.inference_mode()
    def check(ours, theirs, *, sizes=(96, 65), channels=3):
        for size in sizes:
            images = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(size))
            expected, found = theirs(images), ours(images)
            assert torch.isfinite(found).all()
            assert found.std() > 1e-3
            difference = torch.linalg.norm(found - expected) / torch.linalg.norm(expected)
            assert difference < 1e-4, f"{size} px: {difference:.1e}"

    return check
