"""What kind of layer each part of a network is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

from effnet.nn.layers import Dropout, SqueezeExcite, StemPool, StochasticDepth

_ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish, nn.GELU)
_BY_TYPE: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((SqueezeExcite,), "squeeze-excite"),
    ((StochasticDepth,), "residual sum"),
    ((StemPool,), "pooling"),
    ((Dropout,), "dropout"),
    ((nn.BatchNorm2d,), "batch norm"),
    (_ACTIVATIONS, "activation"),
    ((nn.Linear,), "classifier"),
)
POOLING = "pooling"
STEM = "stem"


class GlobalPool(nn.Module):
    """The mean over all pixels before the classifier, which is no module of `effnet.nn.EfficientNet`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the means "N C" of features "N C H W"."""
        return x.mean((2, 3))


class Part(NamedTuple):
    """What is timed as one: a layer, or several that only come together."""

    name: str
    """In the network, as ``stages.0.1.expand.conv``."""
    kind: str
    module: nn.Module


def kind_of(name: str, module: nn.Module) -> str | None:
    """Return the kind of a module, or None where its children have kinds.

    Args:
        name: In the network; convolutions are told apart by what block they are in.
        module: Of `effnet.nn.EfficientNet`.
    """
    if isinstance(module, nn.Conv2d):
        return _convolution(name, module)
    return next((kind for types, kind in _BY_TYPE if isinstance(module, types)), None)


def _convolution(name: str, conv: nn.Conv2d) -> str:
    side = conv.kernel_size[0]
    if name.startswith("stem."):
        return STEM
    if conv.groups > 1:
        return f"depthwise {side}x{side}"
    if side > 1:
        return f"convolution {side}x{side}"
    # stages.0.1.expand.conv, head.conv
    return f"1x1 {name.split('.')[-2]}"


def parts_of(model: nn.Module) -> Iterator[Part]:
    """Yield all parts in the order of the modules; every layer that does anything is in exactly one.

    Raises:
        ValueError: A layer is of no kind that is known.
    """
    yield from _parts("", model)


def _parts(name: str, module: nn.Module) -> Iterator[Part]:
    kind = kind_of(name, module)
    if kind is not None:
        yield Part(name, kind, module)
        return
    children = list(module.named_children())
    if not children and not isinstance(module, nn.Identity):
        raise ValueError(f"'{name}' is a {type(module).__name__}, which is of no known kind of layer")
    for child_name, child in children:
        yield from _parts(f"{name}.{child_name}" if name else child_name, child)
