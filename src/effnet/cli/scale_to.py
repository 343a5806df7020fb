"""What ``effnet scale --to`` means: a cost, its budget, and the networks on the way there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from effnet.arch import NetworkSpec, network_cost
from effnet.errors import UserError, did_you_mean
from effnet.search.solve import Solution, solve

Kind: TypeAlias = Literal["macs", "params", "step_ms", "latency_ms"]
COSTS: tuple[Kind, ...] = get_args(Kind)
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_MEASURED_CLOSENESS = 0.03
"""A budget of measured time may be left unspent by as much; measurements differ by as much, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A budget for one cost."""

    kind: Kind
    budget: float
    text: str
    """The budget as it was given."""


def parse_target(text: str) -> Target:
    """Read ``macs=1.5G``, ``params=10M``, ``step_ms=300`` or ``latency_ms=20``.

    Raises:
        UserError: It is none of these.
    """
    name, _, amount = text.partition("=")
    kind = next((kind for kind in COSTS if kind == name), None)
    if kind is None:
        raise UserError(f"there is no cost '{name}' to scale to{did_you_mean(name, COSTS)}")
    found = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)([kMG]?)", amount)
    try:
        budget = float(found[1]) * _UNITS[found[2]] if found else 0.0
    except ValueError:
        budget = 0.0
    if not 0 < budget < math.inf:
        raise UserError(f"--to {kind}= takes a number above 0, such as 300, 1.5G or 4e8, got '{amount}'")
    return Target(kind=kind, budget=budget, text=amount)


def solve_target(
    target: Target,
    make: Callable[[float], NetworkSpec],
    base: NetworkSpec,
    *,
    recipe: str,
    changes: Sequence[str],
    tell: Callable[[str], None],
) -> Solution:
    """Find the largest network within a budget; see `effnet.search.solve`.

    Args:
        target: The cost and its budget.
        make: The network of a phi.
        base: What is scaled, and what measured networks are compared with.
        recipe: How training steps are computed, where they are measured.
        changes: To the recipe.
        tell: Told what is measured.

    Raises:
        UserError: No network comes near the budget, or there is no such recipe.
    """
    if target.kind == "macs":
        return solve(make, lambda spec: network_cost(spec).macs, target.budget)
    if target.kind == "params":
        return solve(make, lambda spec: network_cost(spec).params, target.budget)
    from effnet.api import configure
    from effnet.search.device_cost import DeviceCost

    device = DeviceCost(configure(recipe=recipe, changes=changes), base, target.kind)

    def measure(spec: NetworkSpec) -> float:
        cost = device(spec)
        tell(f"{spec.num_blocks} blocks, {network_cost(spec).params / 1e6:.2f} M parameters, "
             f"{spec.image_size} px: {cost:.4g} ms")  # fmt: skip
        return cost

    return solve(make, measure, target.budget, closeness=_MEASURED_CLOSENESS)
