"""Steps through a domain: random points, neighbours, mutation and crossover, as functions of their draws."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from effnet.search.points import Domain, Point


def sample(domain: Domain, draws: Random) -> Point:
    """Return a canonical point, every value of every variable with the same probability.

    It need not be feasible. A network that several points mean is that much more probable.
    """
    return domain.canonical(tuple(draws.randrange(len(variable.values)) for variable in domain.variables))


def neighbours(domain: Domain, point: Point) -> tuple[Point, ...]:
    """Return all other canonical points that one other value of one variable gives, each once."""
    own = domain.canonical(point)
    found = dict.fromkeys(domain.canonical(changed) for changed in _changed(domain, own))
    found.pop(own, None)
    return tuple(found)


def mutate(domain: Domain, point: Point, draws: Random) -> Point:
    """Return a neighbour: a variable is drawn, then one of its other values.

    The point itself where it has no neighbour. The result is canonical and need not be feasible.
    """
    own = domain.canonical(point)
    variables = [index for index, variable in enumerate(domain.variables) if len(variable.values) > 1]
    draws.shuffle(variables)
    for index in variables:
        values = [value for value in range(len(domain.variables[index].values)) if value != own[index]]
        draws.shuffle(values)
        for value in values:
            changed = domain.canonical((*own[:index], value, *own[index + 1 :]))
            if changed != own:
                return changed
    return own


def crossover(domain: Domain, first: Point, second: Point, draws: Random) -> Point:
    """Return a canonical point whose values are drawn from two others; it need not be feasible."""
    return domain.canonical(tuple(draws.choice(pair) for pair in zip(first, second, strict=True)))


def wander(domain: Domain, point: Point, draws: Random, steps: int) -> Point:
    """Return a feasible point that many mutations away or nearer: those that are not feasible are not made.

    Args:
        domain: All points.
        point: Feasible.
        draws: Random numbers.
        steps: Mutations to try.
    """
    for _ in range(steps):
        other = mutate(domain, point, draws)
        if domain.is_feasible(other):
            point = other
    return point


def _changed(domain: Domain, point: Point) -> Iterator[Point]:
    for index, variable in enumerate(domain.variables):
        for value in range(len(variable.values)):
            if value != point[index]:
                yield (*point[:index], value, *point[index + 1 :])
