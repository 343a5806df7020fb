"""The phi at which a network costs what it may cost, by the costs of real networks and not by a formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError

_LARGEST_PHI = 12
"""Of a phi that about doubles the cost: some thousand times more, or less."""
_CLOSE_PHIS = 1e-3
"""Phis nearer to each other than this rarely differ by a pixel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A network that was made, and what it costs."""

    phi: float
    spec: NetworkSpec
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """The largest network within a budget."""

    best: Attempt
    above: Attempt
    """The smallest that was tried beyond the budget."""
    attempts: tuple[Attempt, ...]
    """All, in the order in which they were made."""


def solve(
    make: Callable[[float], NetworkSpec],
    cost: Callable[[NetworkSpec], float],
    budget: float,
    *,
    closeness: float = 0.0,
) -> Solution:
    """Find the largest phi whose network costs no more than a budget.

    It goes from phi 0 in steps of 1, so that no network is made that costs much more than the budget, and
    then halves the interval. Rounding makes the cost a staircase; the step below the budget is found.

    Args:
        make: The network of a phi; a larger phi must not give a cheaper one.
        cost: Of a network, in the unit of the budget. Equal networks are asked for once.
        budget: Above 0.
        closeness: How much of the budget may be left unspent, as a share of it. For costs that are measured,
            and not exact.

    Raises:
        UserError: All networks are too expensive, or none is.
    """
    attempts: dict[NetworkSpec, Attempt] = {}

    def attempt(phi: float) -> Attempt:
        spec = make(phi)
        key = replace(spec, name="-")
        if key not in attempts:
            attempts[key] = Attempt(phi=phi, spec=spec, cost=cost(spec))
        return replace(attempts[key], phi=phi, spec=spec)

    low, high = _bracket(attempt, budget)
    while high.phi - low.phi > _CLOSE_PHIS and low.cost < (1 - closeness) * budget:
        middle = attempt((low.phi + high.phi) / 2)
        low, high = (middle, high) if middle.cost <= budget else (low, middle)
    return Solution(best=low, above=high, attempts=tuple(attempts.values()))


def _bracket(attempt: Callable[[float], Attempt], budget: float) -> tuple[Attempt, Attempt]:
    """Return neighbours, of which the first is within the budget and the second beyond it."""
    low = high = attempt(0)
    while high.cost <= budget:
        if high.phi >= _LARGEST_PHI:
            raise UserError(_out_of_reach("largest", high.cost, budget, is_flat=high.cost == attempt(0).cost))
        low, high = high, attempt(high.phi + 1)
    while low.cost > budget:
        if low.phi <= -_LARGEST_PHI:
            raise UserError(_out_of_reach("smallest", low.cost, budget, is_flat=low.cost == attempt(0).cost))
        low, high = attempt(low.phi - 1), low
    return low, high


def _out_of_reach(extreme: str, cost: float, budget: float, *, is_flat: bool) -> str:
    if is_flat:
        return (
            f"this way of scaling does not change the cost, which is {cost:.4g} throughout, so that none "
            f"comes near {budget:.4g}; scale along another axis"
        )
    return (
        f"the {extreme} network that this way of scaling is carried to costs {cost:.4g}, so that none comes "
        f"near {budget:.4g}; give another value, or another network to start from"
    )
