"""The distinct layers of a network at one image size and batch, found by running it without memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor, nn

from effnet.arch.spec import NetworkSpec
from effnet.nn import EfficientNet
from effnet.nn.folding import fold_norms
from effnet.profiling.kinds import POOLING, GlobalPool, parts_of
from effnet.profiling.work import Pass, Work, macs_of, work_of

Shape: TypeAlias = tuple[int, ...]
_Note: TypeAlias = Callable[[str, str, nn.Module, tuple[Shape, ...], Shape], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A layer with its input; what is alike in a network is one layer."""

    kind: str
    name: str
    """Of the first one in the network."""
    count: int
    """How many are alike."""
    module: nn.Module
    """On torch's meta device: shapes without memory."""
    inputs: tuple[Shape, ...]
    output: Shape
    is_training: bool

    @property
    def params(self) -> int:
        """Of one."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass of one, for the whole batch."""
        return macs_of(self.module, self.inputs, self.output)

    @property
    def activations(self) -> int:
        """Output values of one, for the whole batch."""
        return prod(self.output)

    def work(self, element: int) -> dict[Pass, Work]:
        """Return the least that each pass of one does; see `work_of`."""
        return work_of(
            self.kind,
            self.module,
            self.inputs,
            self.output,
            element=element,
            is_training=self.is_training,
        )


def layers_of(spec: NetworkSpec, *, image_size: int, batch: int, is_training: bool) -> tuple[Layer, ...]:
    """Return the distinct layers of a network in the order in which they first run.

    Args:
        spec: The network.
        image_size: Side of the images in pixels.
        batch: Images at a time.
        is_training: Otherwise batch norm is folded into the convolutions, as for answers.
    """
    found: dict[tuple[str, str, tuple[Shape, ...]], Layer] = {}

    def note(name: str, kind: str, module: nn.Module, inputs: tuple[Shape, ...], output: Shape) -> None:
        key = (kind, repr(module), inputs)
        if key in found:
            found[key] = replace(found[key], count=found[key].count + 1)
            return
        found[key] = Layer(
            kind=kind,
            name=name,
            count=1,
            module=module,
            inputs=inputs,
            output=output,
            is_training=is_training,
        )

    with torch.device("meta"), torch.set_grad_enabled(is_training):
        model: nn.Module = EfficientNet(spec).train(is_training)
        if not is_training:
            model = fold_norms(model)
        _watch(model, note)
        model(torch.empty(batch, spec.in_channels, image_size, image_size))
    return tuple(found.values())


def _watch(model: nn.Module, note: _Note) -> None:
    """Let all parts, and the global pooling behind the head, be noted when they run."""
    for name, kind, module in parts_of(model):
        module.register_forward_hook(_hook(name, kind, note))

    def pooled(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        note("pool", POOLING, GlobalPool(), (tuple(output.shape),), tuple(output.shape[:2]))

    model.get_submodule("head").register_forward_hook(pooled)


def _hook(name: str, kind: str, note: _Note) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        note(name, kind, module, tuple(tuple(x.shape) for x in inputs), tuple(output.shape))

    return hook
