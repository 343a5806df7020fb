"""Points that are worth a try: feasible, canonical and not tried before."""

from __future__ import annotations

import math
from collections.abc import Collection
from random import Random

from effnet.search.moves import mutate, sample, wander
from effnet.search.points import Anchored, Domain, Point

_TRIES = 10_000
_TRIES_A_POINT = 20
_BY_CHANCE = 300
"""Tries before anchors are asked for."""
_WALKS = 50
_STEPS_OF_A_WALK = 60
_STEPS = 4
"""How far from a point `near` goes at most."""
_TRIES_A_STEP = 25


def anywhere(domain: Domain, draws: Random, tried: Collection[Point] = ()) -> Point | None:
    """Draw points evenly until one is feasible and was not tried; None if none was found.

    Where chance finds none at first, it goes on from the anchors, if the domain has some.
    """
    size = math.prod(len(variable.values) for variable in domain.variables)
    for number in range(min(_TRIES, _TRIES_A_POINT * size)):
        if number == _BY_CHANCE and isinstance(domain, Anchored) and domain.anchors:
            return _from_anchors(domain, domain.anchors, draws, tried)
        point = sample(domain, draws)
        if point not in tried and domain.is_feasible(point):
            return point
    return None


def _from_anchors(
    domain: Domain, anchors: tuple[Point, ...], draws: Random, tried: Collection[Point]
) -> Point | None:
    for _ in range(_WALKS):
        point = wander(domain, draws.choice(anchors), draws, _STEPS_OF_A_WALK)
        if point not in tried:
            return point
    return None


def near(domain: Domain, point: Point, draws: Random, tried: Collection[Point] = ()) -> Point | None:
    """Change one choice of a point, or more where nothing new is that near; None if none was found."""
    for steps in range(1, _STEPS + 1):
        for _ in range(_TRIES_A_STEP):
            other = point
            for _ in range(steps):
                other = mutate(domain, other, draws)
            if other not in tried and domain.is_feasible(other):
                return other
    return None


def anything(domain: Domain, draws: Random, tried: Collection[Point] = ()) -> Point:
    """Draw a point that is feasible and was not tried, or any point where none was found."""
    return anywhere(domain, draws, tried) or sample(domain, draws)
