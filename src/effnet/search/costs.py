"""What a training step consists of, in closed form: the parts by which `effnet.search.predictor` knows it.

A part is a kind of work of which a device does so much a second: dense and depthwise convolutions by their
multiply-adds, what reads and writes images by its values, layers by their number, and the update of the
weights by theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from effnet.arch.accounting import LayerCost, network_cost
from effnet.arch.spec import BlockSpec, NetworkSpec

PARTS = (
    "constant",
    "layers",
    "params",
    "spatial_macs",
    "pointwise_macs",
    "depthwise_macs",
    "values",
    "depthwise_values",
    "squeeze_values",
)
"""``constant`` is 1. ``spatial``: dense convolutions of more than one pixel. ``values`` are the outputs of
convolutions, those of depthwise ones apart, and those that squeeze-and-excitation averages and scales. From
``spatial_macs`` on, parts are in proportion to the images."""
_BY_STEP = PARTS.index("spatial_macs")


@lru_cache(maxsize=8192)
def step_parts(spec: NetworkSpec, image_size: int, images: int) -> tuple[float, ...]:
    """Return how much of each of `PARTS` a training step has.

    Args:
        spec: The network.
        image_size: Side of the images in pixels.
        images: In a step.
    """
    total = dict.fromkeys(PARTS, 0.0) | {"constant": 1.0}
    for part, amount in _amounts(spec, image_size):
        total[part] += amount
    once, each = list(total.values())[:_BY_STEP], list(total.values())[_BY_STEP:]
    return (*once, *(images * amount for amount in each))


def _amounts(spec: NetworkSpec, image_size: int) -> Iterator[tuple[str, float]]:
    blocks = {f"stages.{block.stage}.{block.position}": block for block in spec.blocks()}
    layers = network_cost(spec, image_size).layers
    for before, layer in pairwise((layers[0], *layers)):
        place, kind = _place(layer)
        block = blocks.get(place)
        yield "layers", 1.0
        yield "params", float(layer.params)
        if kind == "squeeze_excite.reduce":
            yield "squeeze_values", float(before.activations)
        elif kind == "depthwise":
            yield "depthwise_macs", float(layer.macs)
            yield "depthwise_values", float(layer.activations)
        elif kind not in {"squeeze_excite.expand", "classifier"}:
            dense = "spatial_macs" if _is_spatial(kind, block) else "pointwise_macs"
            yield dense, float(layer.macs)
            yield "values", float(layer.activations)


def _place(layer: LayerCost) -> tuple[str, str]:
    """Return the block's name and what the layer is in it; outside of blocks, no name."""
    if not layer.name.startswith("stages."):
        return "", layer.name
    _, stage, position, kind = layer.name.split(".", 3)
    return f"stages.{stage}.{position}", kind


def _is_spatial(kind: str, block: BlockSpec | None) -> bool:
    if block is None or block.kernel_size == 1:
        return kind == "stem"
    has_expansion = block.hidden_channels != block.in_channels
    return (
        kind == "spatial"
        or block.operation == "conv"
        or (block.operation == "fused_mbconv" and (kind == "expand") == has_expansion)
    )
