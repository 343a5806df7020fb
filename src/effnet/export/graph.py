"""A network as a graph of tensor operations: what every form is written from.

Dimension key: N images, C channels, S side, K classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from effnet.arch.preprocessing import Preprocessing
from effnet.export.any_size import for_any_size
from effnet.nn import Network
from effnet.nn.folding import fold_norms

INPUT, OUTPUT = "pixels", "logits"
"""Names of what a file takes and gives, where its form has names."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Graph:
    """A traced network."""

    program: ExportedProgram
    example: Tensor
    """What it was traced with, of the shape and type that it takes."""


class HalfInside(nn.Module):
    """A network in half precision that takes and gives single precision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, pixels: Float[Tensor, "N C S S"]) -> Float[Tensor, "N K"]:
        return self.network(pixels.half()).float()


class RawPixels(nn.Module):
    """A network that normalises its images itself."""

    offset: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("offset", 255 * _column(preprocessing.mean))
        self.register_buffer("scale", 255 * _column(preprocessing.std))

    def forward(self, pixels: UInt8[Tensor, "N S S C"]) -> Float[Tensor, "N K"]:
        return self.network((pixels.permute(0, 3, 1, 2).float() - self.offset) / self.scale)


def from_raw(images: UInt8[Tensor, "N S S C"], preprocessing: Preprocessing) -> Float[Tensor, "N C S S"]:
    """Normalise pixels."""
    return (images.permute(0, 3, 1, 2).float() - 255 * _column(preprocessing.mean)) / (
        255 * _column(preprocessing.std)
    )


def _column(values: tuple[float, ...]) -> Float[Tensor, "C 1 1"]:
    return torch.tensor(values)[:, None, None]


def to_raw(pixels: Float[Tensor, "N C S S"], preprocessing: Preprocessing) -> UInt8[Tensor, "N S S C"]:
    """Undo the normalisation: what were whole numbers in [0, 255] are the same numbers again."""
    mean, std = _column(preprocessing.mean), _column(preprocessing.std)
    return (pixels * (255 * std) + 255 * mean).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def trace(
    network: Network,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 1,
    any_size: bool = False,
    raw_pixels: bool = False,
    half: bool = False,
) -> Graph:
    """Return a network as a graph, its batch norm folded, padded for its size or for any.

    Args:
        network: In evaluation mode, on the processor; it stays as it is.
        preprocessing: Of the images; the side is the one that is traced.
        batch_size: Images; 0: any number.
        any_size: Whether the graph shall be right for other sides as well.
        raw_pixels: Whether it shall take uint8 N S S C and normalise it.
        half: Whether it shall compute in half precision.
    """
    inside = fold_norms(network).requires_grad_(False)
    module: nn.Module = for_any_size(inside) if any_size else inside
    module = HalfInside(module) if half else module
    module = (RawPixels(module, preprocessing) if raw_pixels else module).eval()
    side, channels = preprocessing.image_size, network.spec.in_channels
    count = batch_size or 2  # Of one image, tracing would make a constant.
    example = (
        torch.zeros(count, side, side, channels, dtype=torch.uint8)
        if raw_pixels
        else torch.zeros(count, channels, side, side)
    )
    sides = (1, 2) if raw_pixels else (2, 3)
    dynamic = ({0: Dim.DYNAMIC} if batch_size == 0 else {}) | (
        dict.fromkeys(sides, Dim.DYNAMIC) if any_size else {}
    )
    with torch.no_grad(), warnings.catch_warnings():
        # torch's own tracer calls what torch has deprecated.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        program = torch.export.export(module, (example,), dynamic_shapes=(dynamic or None,))
    forget_sources(program)
    return Graph(program=program, example=example)


def forget_sources(program: ExportedProgram, *keys: str) -> None:
    """Files shall not tell where the package lies on the machine that wrote them.

    Args:
        program: Changed in place.
        keys: What else to drop of what was noted at each operation.
    """
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", *keys):
                    node.meta.pop(key, None)
