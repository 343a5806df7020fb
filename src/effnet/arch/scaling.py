"""Make a network wider and deeper: the rounding rules and compound scaling of 1905.11946."""

from __future__ import annotations

import math
from dataclasses import replace

from effnet.arch.spec import NetworkSpec, StageSpec


def round_channels(channels: int, width: float, *, divisor: int = 8, guard: bool) -> int:
    """Scale a channel count and round it to the nearest multiple of ``divisor`` (as released).

    Args:
        channels: Channels before scaling.
        width: Width coefficient, above 0.
        divisor: The result is a multiple of it, and at least it.
        guard: Go up one multiple when rounding took away more than 10 %. The V1 release does, the V2
            release does not; of the published networks it changes B3 alone (stage 1: 24 or 16).

    Returns:
        Channels after scaling.
    """
    scaled = channels * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    if guard and rounded < 0.9 * scaled:
        rounded += divisor
    return rounded


def round_repeats(repeats: int, depth: float) -> int:
    """Scale a number of blocks by the depth coefficient and round it up (as released)."""
    return math.ceil(depth * repeats)


def scale(
    spec: NetworkSpec,
    *,
    width: float = 1.0,
    depth: float = 1.0,
    resolution: float = 1.0,
    guard: bool = False,
    fixed_ends: bool = False,
    name: str | None = None,
) -> NetworkSpec:
    """Scale any network along the three axes of compound scaling (1905.11946 section 3.3).

    Args:
        spec: The network to start from.
        width: Multiplies channels, see `round_channels`.
        depth: Multiplies repeats, see `round_repeats`.
        resolution: Multiplies both image sizes, rounded to the nearest pixel.
        guard: The 10 % rule of `round_channels`.
        fixed_ends: Keep the stem, the head and the repeats of the first and last stage (the lite rule).
        name: Name of the result; by default the old name with the coefficients that are not 1.

    Returns:
        A new network; the same network when all coefficients are 1.
    """
    last = len(spec.stages) - 1

    def scaled(index: int, stage: StageSpec) -> StageSpec:
        keeps_repeats = fixed_ends and index in {0, last}
        # Where channels are counted by the narrow middle of a block, it is the middle that is rounded.
        divisor = 8 * stage.expand_ratio if stage.operation == "bottleneck" else 8
        return replace(
            stage,
            channels=round_channels(stage.channels, width, divisor=divisor, guard=guard),
            repeats=stage.repeats if keeps_repeats else round_repeats(stage.repeats, depth),
        )

    def end(channels: int) -> int:
        return channels if fixed_ends or not channels else round_channels(channels, width, guard=guard)

    coefficients = (("width", width), ("depth", depth), ("resolution", resolution))
    suffix = "".join(f"-{axis}{value:g}" for axis, value in coefficients if value != 1.0)
    return replace(
        spec,
        name=name or spec.name + suffix,
        stages=tuple(scaled(index, stage) for index, stage in enumerate(spec.stages)),
        stem_channels=end(spec.stem_channels),
        head_channels=end(spec.head_channels),
        image_size=round(spec.image_size * resolution),
        train_size=round(spec.train_size * resolution),
    )
