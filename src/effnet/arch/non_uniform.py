"""Non-uniform scaling: how V2-S, M, L and XL are made from one base (2104.00298 section 3.3).

The paper says that image sizes are capped at 480 and that later stages get more layers; the released tables
say "about base * (1.4, 1.8)", "(1.6, 2.2)" and "(2.0, 3.1)", the coefficients of V1's B4, B5 and B7. The rule
here, found by comparing the tables, gives all of them from V2-B0 but for the exceptions in `V2_SIZES`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from effnet.arch.compound import Coefficients, published_coefficients, under_published_name
from effnet.arch.family import network
from effnet.arch.scaling import round_channels, round_repeats
from effnet.arch.spec import NetworkSpec, StageSpec
from effnet.errors import UserError, did_you_mean

_V2_BASE = "v2-b0"


@dataclass(frozen=True, kw_only=True, slots=True)
class NonUniformRule:
    """What is scaled otherwise than by one factor for all stages; the defaults are V2's.

    Stages are counted from the last one that halves the image, which is stage 6 of V2.
    """

    max_image_size: int = 480
    """Pixels a side; the cap on the size at which a network is evaluated."""
    late_depth: float = 2.0
    """From this depth coefficient on, the later stages get more blocks."""
    late_repeats: int = 1
    """Blocks that the stage before the last halving one has more, before the depth coefficient."""
    last_repeats: int = 2
    """Blocks of the stage that is added behind the last halving one where there is none, before the depth
    coefficient; 0: it is not added."""
    last_width: float = 5 / 3
    """Its width before the width coefficient, divided by that of the stage before it: 320 / 192."""
    divisor: int = 16
    """Channels are multiples of it, from the second stage on."""
    first_divisor: int = 8
    """Of the first stage, whose width the stem shares."""
    train_share: float = 0.8
    """Training size divided by the size of evaluation: 384 / 480."""

    def __post_init__(self) -> None:
        if self.max_image_size < 1 or min(self.late_repeats, self.last_repeats) < 0:
            raise UserError(
                "non-uniform scaling wants a largest image size of at least 1 and no negative number of "
                f"blocks, got {self.max_image_size}, {self.late_repeats} and {self.last_repeats}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class V2Size:
    """The coefficients of a published V2 network, and where it is not what the rule gives."""

    coefficients: Coefficients
    channels: MappingProxyType[int, int] = field(default_factory=lambda: MappingProxyType({}))
    """By stage, from 1."""
    repeats: MappingProxyType[int, int] = field(default_factory=lambda: MappingProxyType({}))
    """By stage, from 1."""
    image_size: int | None = None
    train_size: int | None = None

    @property
    def exceptions(self) -> list[str]:
        """The exceptions in words."""
        found = [f"stage {stage} has {count} channels" for stage, count in self.channels.items()]
        found += [f"stage {stage} has {count} blocks" for stage, count in self.repeats.items()]
        found += [f"it is evaluated at {self.image_size} px"] if self.image_size else []
        return found + ([f"it is trained at {self.train_size} px"] if self.train_size else [])


def _v1(phi: int, dropout_rate: float) -> Coefficients:
    return replace(published_coefficients(phi), dropout_rate=dropout_rate)


V2_SIZES: dict[str, V2Size] = {
    # The rule gives 272 channels, as the first version of the paper has them, and 307 px.
    "s": V2Size(coefficients=_v1(4, 0.2), channels=MappingProxyType({6: 256}), train_size=300),
    "m": V2Size(coefficients=_v1(5, 0.3)),
    "l": V2Size(coefficients=_v1(7, 0.4)),
    # Not in the paper, and beyond its cap. The rule gives 12 blocks, and 224 and 384 channels.
    "xl": V2Size(
        coefficients=replace(_v1(7, 0.4), depth=4.0),
        channels=MappingProxyType({5: 256, 6: 512}),
        repeats=MappingProxyType({4: 16}),
        image_size=512,
    ),
}
_PAPER_RULE = NonUniformRule()


def scale_non_uniform(
    spec: NetworkSpec,
    coefficients: Coefficients,
    *,
    rule: NonUniformRule = _PAPER_RULE,
    name: str | None = None,
) -> NetworkSpec:
    """Scale a network by V2's rule.

    Widths are rounded to multiples of ``rule.divisor``; the stem has the width of the first stage, and the
    head keeps its own. The image size is rounded up to a multiple of the network's stride, up to the cap.

    Args:
        spec: The network to start from.
        coefficients: Of a phi, or any.
        rule: What is not uniform.
        name: Of the result; by default the old name with the coefficients.

    Returns:
        The scaled network; under its published name where it is published.

    Raises:
        UserError: The first stage has bottlenecks, whose width no stem can have.
    """
    if spec.stages[0].operation == "bottleneck":
        raise UserError(
            f"V2's rule gives the stem the width of the first stage, and the bottlenecks of {spec.name} are "
            "far wider than a stem; scale it by --phi, or by --width, --depth and --resolution"
        )
    deep = coefficients.depth >= rule.late_depth
    bases = _with_late_blocks(spec.stages, rule) if deep else spec.stages
    stages = tuple(
        replace(
            stage,
            channels=round_channels(
                stage.channels,
                coefficients.width,
                divisor=rule.first_divisor if index == 0 else rule.divisor,
                guard=False,
            ),
            repeats=round_repeats(stage.repeats, coefficients.depth),
        )
        for index, stage in enumerate(bases)
    )
    image_size = _capped_size(spec, coefficients.resolution, rule)
    dropout_rate = spec.dropout_rate if coefficients.dropout_rate is None else coefficients.dropout_rate
    suffix = f"width{coefficients.width:.4g}-depth{coefficients.depth:.4g}"
    return under_published_name(
        replace(
            spec,
            name=name or f"{spec.name}-non-uniform-{suffix}",
            stages=stages,
            stem_channels=stages[0].channels,
            image_size=image_size,
            train_size=max(int(image_size * rule.train_share), 1),
            dropout_rate=dropout_rate,
        )
    )


def scale_to_v2_size(
    spec: NetworkSpec, size: str, *, rule: NonUniformRule = _PAPER_RULE, exceptions: bool = True
) -> NetworkSpec:
    """Scale a network as V2-S, M, L or XL was scaled; V2-B0 becomes just that network.

    Args:
        spec: The network to start from.
        size: ``s``, ``m``, ``l`` or ``xl``.
        rule: What is not uniform.
        exceptions: Whether what the published tables have otherwise than by the rule is taken over, where
            the base and the rule are V2's; see `V2_SIZES`.

    Raises:
        UserError: There is no such size.
    """
    if size not in V2_SIZES:
        raise UserError(f"there is no size '{size}' of V2{did_you_mean(size, V2_SIZES)}")
    chosen = V2_SIZES[size]
    scaled = scale_non_uniform(spec, chosen.coefficients, rule=rule, name=f"{spec.name}-{size}")
    if not (exceptions and has_exceptions(spec, size, rule)):
        return scaled
    stages = tuple(
        replace(
            stage,
            channels=chosen.channels.get(number, stage.channels),
            repeats=chosen.repeats.get(number, stage.repeats),
        )
        for number, stage in enumerate(scaled.stages, start=1)
    )
    return under_published_name(
        replace(
            scaled,
            stages=stages,
            image_size=chosen.image_size or scaled.image_size,
            train_size=chosen.train_size or scaled.train_size,
        )
    )


def has_exceptions(spec: NetworkSpec, size: str, rule: NonUniformRule = _PAPER_RULE) -> bool:
    """Whether a published network differs from what the rule gives: only of V2's own base and rule."""
    return bool(V2_SIZES[size].exceptions) and rule == _PAPER_RULE and spec == network(_V2_BASE)


def _with_late_blocks(stages: tuple[StageSpec, ...], rule: NonUniformRule) -> tuple[StageSpec, ...]:
    """Return the stages of a base with the blocks that larger networks have more."""
    last = len(stages) - 1
    halving = max((index for index, stage in enumerate(stages) if stage.stride > 1), default=last)
    late = max(halving - 1, 0)
    found = [
        replace(stage, repeats=stage.repeats + rule.late_repeats) if index == late else stage
        for index, stage in enumerate(stages)
    ]
    if halving == last and rule.last_repeats:
        channels = round(stages[last].channels * rule.last_width)
        found.append(replace(stages[last], stride=1, channels=channels, repeats=rule.last_repeats))
    return tuple(found)


def _capped_size(spec: NetworkSpec, resolution: float, rule: NonUniformRule) -> int:
    # What is a multiple already must not be rounded up for the last bit of a product.
    wanted = math.ceil(round(spec.image_size * resolution / spec.stride, 6)) * spec.stride
    return min(wanted, rule.max_image_size)
