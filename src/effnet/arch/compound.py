"""One number for width, depth and resolution: compound scaling by its formula, and as V1 was published."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from effnet.arch.family import V1_COEFFICIENTS, names, network
from effnet.arch.scaling import scale
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError

LARGEST_PUBLISHED = 8
"""B8; it is not in the paper, but in the release."""
_V1_BASE = "v1-b0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Coefficients:
    """What `effnet.arch.scale` multiplies a network by, each above 0.

    Raises:
        UserError: A coefficient is not above 0.
    """

    width: float = 1.0
    depth: float = 1.0
    resolution: float = 1.0
    dropout_rate: float | None = None
    """Of the scaled network; None: that of the network it is made from."""

    def __post_init__(self) -> None:
        for axis in ("width", "depth", "resolution"):
            value = getattr(self, axis)
            if not 0 < value < math.inf:
                raise UserError(f"{axis} multiplies a network, so it must be above 0, got {value:g}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Compound:
    """Constants of the formula (1905.11946 equation 3): what one step of phi multiplies each axis by.

    The defaults are what the paper's grid search found for B0.

    Raises:
        UserError: A constant is below 1, or all of them are 1.
    """

    alpha: float = 1.2
    """Depth."""
    beta: float = 1.1
    """Width."""
    gamma: float = 1.15
    """Resolution."""

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            if not 1 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be at least 1 (equation 3), got {getattr(self, name):g}")
        if self.growth == 1:
            raise UserError("alpha, beta and gamma are all 1, so that no phi changes anything; raise one")

    @property
    def growth(self) -> float:
        """What a step of phi multiplies the cost by, were there no rounding; the paper wants about 2."""
        return self.alpha * self.beta**2 * self.gamma**2

    def at(self, phi: float) -> Coefficients:
        """Return the coefficients of a phi; a negative one makes a network smaller."""
        return Coefficients(width=self.beta**phi, depth=self.alpha**phi, resolution=self.gamma**phi)


DOUBLING = {
    "depth": Compound(alpha=2.0, beta=1.0, gamma=1.0),
    "width": Compound(alpha=1.0, beta=math.sqrt(2), gamma=1.0),
    "resolution": Compound(alpha=1.0, beta=1.0, gamma=math.sqrt(2)),
}
"""Scaling along a single axis, of which each step of phi doubles the multiply-adds."""


def published_coefficients(phi: float) -> Coefficients:
    """Return the coefficients that V1's B0 to B8 were published with.

    They are round numbers near the formula's, but of no single phi: those of B4 are the formula's at 3.2
    (depth), 3.5 (width) and 3.8 (resolution).

    Args:
        phi: The digit behind the B.

    Raises:
        UserError: There is no such network.
    """
    if phi not in range(LARGEST_PUBLISHED + 1):
        raise UserError(
            f"coefficients are published for phi = 0 to {LARGEST_PUBLISHED} (B0 to B8 of V1), got {phi:g}; "
            "give --alpha 1.2 --beta 1.1 --gamma 1.15 for the formula, which takes any phi"
        )
    width, depth, image_size, dropout_rate = V1_COEFFICIENTS[f"v1-b{int(phi)}"]
    base_size = V1_COEFFICIENTS[_V1_BASE][2]
    return Coefficients(
        width=width, depth=depth, resolution=image_size / base_size, dropout_rate=dropout_rate
    )


def scale_by(
    spec: NetworkSpec, coefficients: Coefficients, *, guard: bool | None = None, name: str | None = None
) -> NetworkSpec:
    """Scale a network uniformly, all stages alike.

    Args:
        spec: The network to start from.
        coefficients: Of a phi, or any.
        guard: The 10 % rule of `effnet.arch.round_channels`; None: as the network was released, with it
            unless the network is one of V2's.
        name: Of the result, see `effnet.arch.scale`.

    Returns:
        The scaled network; under its published name where it is published.
    """
    scaled = scale(
        spec,
        width=coefficients.width,
        depth=coefficients.depth,
        resolution=coefficients.resolution,
        guard=not spec.name.startswith("v2-") if guard is None else guard,
        name=name,
    )
    if coefficients.dropout_rate is not None:
        scaled = replace(scaled, dropout_rate=coefficients.dropout_rate)
    return under_published_name(scaled)


def under_published_name(spec: NetworkSpec) -> NetworkSpec:
    """Return a network under the name of the published one that it equals, if there is one."""
    # The name decides which weights and which preprocessing are its own.
    for published in map(network, names()):
        if published.stages == spec.stages and published == replace(spec, name=published.name):
            return published
    return spec
