"""A layer by itself: how long each of its passes takes, and what it keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from effnet.nn.layers import Dropout, StochasticDepth
from effnet.profiling.device import Setting, seconds_of
from effnet.profiling.kinds import STEM
from effnet.profiling.layers import Layer, Shape
from effnet.profiling.work import Pass

_RATE = 0.1
"""Of dropout and drop-path; the time does not depend on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """What one layer takes."""

    seconds: dict[Pass, tuple[float, ...]]
    """Of each call."""
    kept_bytes: int
    """Of activations that it keeps for its backward pass, its own input or output included."""


def time_alone(layer: Layer, setting: Setting, *, rounds: int) -> Timed:
    """Run a layer on random numbers; for a convolution, both gradients are timed apart.

    Args:
        layer: What to run.
        setting: Where and how.
        rounds: Calls of each pass that count.
    """
    module = _real(layer.module, setting).train(layer.is_training)
    # The first convolution reads images, which have no gradient and are in single precision.
    is_first = layer.kind == STEM
    inputs = [
        _noise(shape, setting, torch.float32 if is_first else setting.precision) for shape in layer.inputs
    ]

    def forward() -> Tensor:
        with setting.autocast():
            result: Tensor = module(*inputs)
        return result

    if not layer.is_training:
        with torch.inference_mode():
            return Timed(seconds={"forward": seconds_of(forward, setting.device, rounds)}, kept_bytes=0)
    for tensor in () if is_first else inputs:
        tensor.requires_grad_()
    seconds: dict[Pass, tuple[float, ...]] = {"forward": seconds_of(forward, setting.device, rounds)}
    kept, out = _kept(forward, module)
    upstream = torch.randn_like(out)
    wanted: dict[Pass, list[Tensor]] = {
        "input gradient": inputs,
        "weight gradient": list(module.parameters()),
        "backward": [*inputs, *module.parameters()],
    }
    for name in layer.work(setting.element):
        if name in wanted:
            backward = partial(torch.autograd.grad, out, wanted[name], upstream, retain_graph=True)
            seconds[name] = seconds_of(backward, setting.device, rounds)
    return Timed(seconds=seconds, kept_bytes=kept)


def _real(module: nn.Module, setting: Setting) -> nn.Module:
    """Return a copy of a module of the meta device with memory and plausible values."""
    real = deepcopy(module)
    for part in real.modules():
        part._forward_hooks.clear()  # Those that noted its shapes.
    real.to_empty(device=setting.device)
    for parameter in real.parameters():
        nn.init.normal_(parameter, std=0.1)
    for part in real.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
        elif isinstance(part, Dropout | StochasticDepth):
            part.rate.fill_(_RATE)
    return real.to(memory_format=setting.memory_format)  # type: ignore[call-overload]


def _noise(shape: Shape, setting: Setting, dtype: torch.dtype) -> Tensor:
    values = torch.randn(shape, device=setting.device).to(dtype)
    return values.contiguous(memory_format=setting.memory_format) if len(shape) == 4 else values


def _kept(forward: Callable[[], Tensor], module: nn.Module) -> tuple[int, Tensor]:
    """Return the bytes that a forward pass keeps besides parameters and statistics, and its result."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    return sum(sizes.values()), out
