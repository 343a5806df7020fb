"""Ask a strategy for a point that is new and feasible, whatever it answers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from effnet.errors import UserError
from effnet.search.points import Domain, Observation, Point, Strategy
from effnet.search.strategies.candidates import anywhere, near

_ASKS = 3
_COUNTABLE = 1_000_000
"""Up to so many points a space is searched through before it is said to be exhausted."""
_SUM_SHARE = 0.05


def propose(
    strategy: Strategy, domain: Domain, history: Sequence[Observation], seed: int, number: int
) -> Point:
    """Return the next point to try: new, feasible and canonical.

    The same arguments give the same point, also from a strategy that has been asked before.

    Args:
        strategy: Who is asked. Where there are several scores and it wants one, each ask weighs them anew.
        domain: All points.
        history: All that was asked for, in the order of asking.
        seed: Of the study.
        number: Of the ask; another one gives other random numbers.

    Raises:
        UserError: All feasible points were tried, or none was found.
    """
    draws = Random(f"{seed}/{number}")
    tried = {seen.point for seen in history}
    told = history if strategy.takes_fronts else weighed(history, draws)
    point = None
    for _ in range(_ASKS):
        point = domain.canonical(strategy.ask(domain, told, draws))
        if point not in tried and domain.is_feasible(point):
            return point
    assert point is not None
    return near(domain, point, draws, tried) or anywhere(domain, draws, tried) or _left(domain, tried, draws)


def weighed(history: Sequence[Observation], draws: Random) -> Sequence[Observation]:
    """Make one score of several by random weights (ParEGO's augmented Chebyshev function, Knowles 2006).

    Over many asks the weights lead to all parts of the front, also to those that no weighted sum finds.
    """
    scores = [seen.scores for seen in history if seen.state == "done"]
    if not scores or len(scores[0]) == 1:
        return history
    raw = [draws.expovariate(1.0) for _ in scores[0]]
    weights = [weight / sum(raw) for weight in raw]
    lows, highs = ([edge(column) for column in zip(*scores, strict=True)] for edge in (min, max))

    def one(several: Sequence[float]) -> float:
        losses = [
            weight * (high - score) / (high - low or 1.0)
            for weight, score, low, high in zip(weights, several, lows, highs, strict=True)
        ]
        return -max(losses) - _SUM_SHARE * sum(losses)

    return [replace(seen, scores=(one(seen.scores),)) if seen.state == "done" else seen for seen in history]


def _left(domain: Domain, tried: set[Point], draws: Random) -> Point:
    """Return one of the points that are left, having looked at all."""
    size = math.prod(len(variable.values) for variable in domain.variables)
    if size > _COUNTABLE:
        raise UserError(
            f"found nothing untried among some of {size:.2g} points; loosen the bounds or widen the space"
        )
    grid = itertools.product(*(range(len(variable.values)) for variable in domain.variables))
    feasible = [point for point in grid if domain.canonical(point) == point and domain.is_feasible(point)]
    if left := [point for point in feasible if point not in tried]:
        return draws.choice(left)
    raise UserError(
        f"all {len(feasible):,} points of the space were tried; loosen the bounds or widen the space to go on"
    )
