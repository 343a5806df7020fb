"""What a layer must compute and move: multiply-adds, and each input read once and each output written once.

Dimension key: N images, C input and D output channels, H and W input and P and Q output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

from torch import nn

from effnet.nn.layers import SqueezeExcite, StochasticDepth
from effnet.profiling.kinds import STEM, GlobalPool

Pass: TypeAlias = Literal["forward", "input gradient", "weight gradient", "backward", "update"]
"""``backward`` where the gradients of input and weights are one operation."""
PARAMETER_BYTES = 4
"""Parameters, gradients, averages and slots are in single precision, whatever the network computes in."""
IMAGE_BYTES = 4
"""Of a normalised value, which the first convolution reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The least that one pass of one layer does, for all images of a batch."""

    macs: int
    """Multiply-adds of convolutions and linear layers; all other arithmetic hides behind memory."""
    bytes: int


def work_of(
    kind: str,
    module: nn.Module,
    inputs: tuple[tuple[int, ...], ...],
    output: tuple[int, ...],
    *,
    element: int,
    is_training: bool,
) -> dict[Pass, Work]:
    """Return the work of each pass of a layer.

    Args:
        kind: As `effnet.profiling.kinds` says.
        module: The layer.
        inputs: Shapes "N C H W" of what it is given.
        output: Shape "N D P Q" of what it returns.
        element: Bytes of a value between layers.
        is_training: Whether there is a backward pass.
    """
    macs = macs_of(module, inputs, output)
    weights = PARAMETER_BYTES * sum(parameter.numel() for parameter in module.parameters())
    given, returned = (element * sum(map(prod, shapes)) for shapes in (inputs, (output,)))
    if kind == STEM:
        read = IMAGE_BYTES * sum(map(prod, inputs))
        forward = Work(macs=macs, bytes=read + returned + weights)
        weight_gradient = Work(macs=macs, bytes=given + returned + weights)
        if not is_training:
            return {"forward": forward}
        return {"forward": forward, "weight gradient": weight_gradient}
    whole = Work(macs=macs, bytes=given + returned + weights)
    if not is_training:
        return {"forward": whole}
    if isinstance(module, nn.Conv2d | nn.Linear):
        # Gradient and weights in, gradient out; gradient and input in, gradient of the weights out.
        return {"forward": whole, "input gradient": whole, "weight gradient": whole}
    return {"forward": whole, "backward": _undivided(module, macs, given, returned, weights)}


def _undivided(module: nn.Module, macs: int, given: int, returned: int, weights: int) -> Work:
    """Return the work of a backward pass that is one operation."""
    if isinstance(module, StochasticDepth):
        # The gradient of the shortcut is the one that came; only the branch's is another.
        return Work(macs=0, bytes=2 * returned)
    if isinstance(module, GlobalPool):
        return Work(macs=0, bytes=returned + given)
    # Gradient and input (or what is kept instead) in, gradient out; weights in, and their gradients out.
    return Work(macs=2 * macs, bytes=returned + 2 * given + 2 * weights)


def macs_of(module: nn.Module, inputs: tuple[tuple[int, ...], ...], output: tuple[int, ...]) -> int:
    """Return the multiply-adds of a forward pass, counted as `effnet.arch.accounting` counts them."""
    if isinstance(module, nn.Conv2d):
        return prod(output) * prod(module.weight.shape[1:])
    if isinstance(module, nn.Linear):
        return inputs[0][0] * module.weight.numel()
    if isinstance(module, SqueezeExcite):
        return inputs[0][0] * (module.reduce.weight.numel() + module.expand.weight.numel())
    return 0
