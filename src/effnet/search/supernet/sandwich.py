"""Which networks one step trains: the largest, the smallest and some in between (1903.05134, 2003.11142)."""

from __future__ import annotations

from random import Random

from effnet.errors import UserError
from effnet.search.moves import sample
from effnet.search.points import Point, Value
from effnet.search.supernet.envelope import NetworkDomain

_TRIES = 10_000


def sandwich(domain: NetworkDomain, draws: Random, *, between: int) -> list[Point]:
    """Return the points that one step trains: the largest first, the smallest last.

    Where values have no order, as operations and residuals, none is the largest: they are drawn anew for the
    largest and for the smallest of every step, so that all branches learn from the labels. Both may be over a
    bound of the space.

    Args:
        domain: The space.
        draws: Random numbers of this step alone.
        between: How many feasible ones are drawn.
    """
    largest = _extreme(domain, draws, -1)
    middle = [random_point(domain, draws) for _ in range(between)]
    return [largest, *middle, _extreme(domain, draws, 0)]


def random_point(domain: NetworkDomain, draws: Random) -> Point:
    """Draw each value for itself until the network is feasible.

    Raises:
        UserError: None of many was.
    """
    for _ in range(_TRIES):
        point = sample(domain, draws)
        if domain.is_feasible(point):
            return point
    raise UserError(f"none of {_TRIES:,} networks of the space is within its bounds; give it more room")


def _extreme(domain: NetworkDomain, draws: Random, end: int) -> Point:
    point = []
    for variable in domain.variables:
        options = len(variable.values)
        is_size = all(_is_number(value) for value in variable.values)
        point.append(end % options if is_size else draws.randrange(options))
    return domain.canonical(tuple(point))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
