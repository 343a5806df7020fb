"""V1's small grid search for alpha, beta and gamma: which constants there are (1905.11946 section 3.3).

The paper wants alpha * beta^2 * gamma^2 of about 2. Because blocks are rounded up and channels to multiples
of 8, networks that meet this cost 1.9 to 3.3 times the base in truth, and many of them are the same. Here it
is the true cost that is near the factor, and every network is there once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from effnet.arch import NetworkSpec, network_cost
from effnet.arch.compound import Compound, scale_by
from effnet.errors import UserError

_PAPER = Compound()
_FEWEST, _MOST = 0.55, 1.3
"""By the formula, as shares of the factor: rounding up makes small networks dearer than it says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GridPoint:
    """Constants to try, and the network that they give at phi 1."""

    compound: Compound
    spec: NetworkSpec
    macs_ratio: float
    """Multiply-adds divided by those of the base."""

    @property
    def name(self) -> str:
        """Of its folder."""
        constants = self.compound
        return f"alpha{constants.alpha:g}-beta{constants.beta:g}-gamma{constants.gamma:g}"


def grid_points(
    base: NetworkSpec,
    *,
    step: float = 0.05,
    factor: float = 2.0,
    tolerance: float = 0.1,
    guard: bool | None = None,
) -> list[GridPoint]:
    """Return all constants whose network costs ``factor`` times the base, those near the paper's first.

    Args:
        base: The network, at the sizes at which it is trained and evaluated.
        step: Of the grid, in alpha, beta and gamma alike, from 1.
        factor: Wanted multiply-adds at the size of evaluation, divided by the base's; above 1.
        tolerance: How far from the factor a cost may be, as a share of it.
        guard: See `effnet.arch.scale_by`.

    Raises:
        UserError: A value is out of range, or no network is that near to the factor.
    """
    if not (step >= 0.01 and 1 < factor <= 8 and 0 < tolerance < 1):
        raise UserError(
            "a grid has a step of at least 0.01, a factor between 1 and 8 and a tolerance between 0 and 1, "
            f"got {step:g}, {factor:g} and {tolerance:g}"
        )
    base_macs = network_cost(base).macs
    networks = dict[NetworkSpec, Compound]()
    # Of equal networks, the constants count whose product says best what the network costs.
    for compound in sorted(_constants(step, factor), key=lambda item: abs(math.log(item.growth / factor))):
        networks.setdefault(replace(scale_by(base, compound.at(1), guard=guard), name="-"), compound)
    costs = {spec: network_cost(spec).macs / base_macs for spec in networks}
    seen = [
        GridPoint(compound=compound, spec=scale_by(base, compound.at(1), guard=guard), macs_ratio=costs[spec])
        for spec, compound in networks.items()
        if abs(costs[spec] / factor - 1) <= tolerance
    ]
    if not seen:
        nearest = min(costs.values(), key=lambda ratio: abs(math.log(ratio / factor)))
        raise UserError(
            f"no network of this grid costs {factor:g} times {base.name}, within {tolerance:.0%}; the "
            f"nearest costs {nearest:.3g} times; give that factor, a larger tolerance, or a smaller step"
        )
    return sorted(seen, key=lambda point: _distance(point.compound, _PAPER))


def spread_points(points: Sequence[GridPoint], number: int) -> list[GridPoint]:
    """Choose points that lie far from each other, from the first one on.

    Args:
        points: Of `grid_points`.
        number: How many; all where there are no more.
    """
    left, chosen = list(points[1:]), list(points[:1])
    while left and len(chosen) < number:
        farthest = max(
            left,
            key=lambda point: min(_distance(point.compound, other.compound) for other in chosen),
        )
        left.remove(farthest)
        chosen.append(farthest)
    return chosen


def _constants(step: float, factor: float) -> Iterator[Compound]:
    """Yield the grid around the factor, wide enough for what rounding does to the cost."""
    depths = range(math.floor((_MOST * factor - 1) / step) + 1)
    sides = range(math.floor((math.sqrt(_MOST * factor) - 1) / step) + 1)
    for depth in depths:
        for width in sides:
            for size in sides:
                alpha, beta, gamma = (round(1 + step * count, 6) for count in (depth, width, size))
                growth = alpha * beta**2 * gamma**2
                if max(_FEWEST * factor, 1 + step / 2) <= growth <= _MOST * factor:
                    yield Compound(alpha=alpha, beta=beta, gamma=gamma)


def _distance(one: Compound, other: Compound) -> float:
    """Return how far apart constants are, each measured by what it does to the cost."""
    pairs = ((one.alpha, other.alpha, 1), (one.beta, other.beta, 2), (one.gamma, other.gamma, 2))
    return math.hypot(*(power * math.log(mine / theirs) for mine, theirs, power in pairs))
