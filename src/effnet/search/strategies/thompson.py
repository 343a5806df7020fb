"""Thompson sampling with a model of single choices and pairs of choices: the default strategy.

Draw a function from what the model believes, climb it from the best networks so far, and try where that ends.
The model is additive in the choices, with pairs of them as corrections, which describes trained networks well
from 50 trials on; the draw explores where the model does not know.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from effnet.search.points import Domain, Observation, Point, Variable
from effnet.search.strategies.candidates import anything, near
from effnet.search.strategies.pairwise import Layout, PairwiseFunction
from effnet.search.strategies.posterior import PairwisePosterior

_RANDOM_ASKS = 10
_STARTS = 5
_STEPS = 100
_LEAST_GAIN = 1e-9
_SPREAD = 3.0
"""Scores further below the median than this many times what the best tenth is above it count as that: how bad
a network is that nobody wants is not worth modelling."""


@dataclass(frozen=True, slots=True)
class ThompsonSampling:
    """Try the optimum of a function that could be the truth, given what is known."""

    takes_fronts: ClassVar[bool] = False
    _posteriors: dict[tuple[Variable, ...], PairwisePosterior] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Of the last domain, to save work."""

    def ask(self, domain: Domain, history: Sequence[Observation], draws: Random) -> Point:
        """See `Strategy.ask`."""
        tried = {seen.point for seen in history}
        known = [seen for seen in history if seen.state != "running"]
        done = [seen for seen in known if seen.state == "done"]
        if len(done) < _RANDOM_ASKS:
            return anything(domain, draws, tried)
        drawn = self._posterior(domain).draw(
            [seen.point for seen in known], targets(known), np.random.default_rng(draws.getrandbits(64))
        )
        done.sort(key=lambda seen: (-seen.scores[0], seen.number))
        tops = dict.fromkeys(climb(domain, drawn, seen.point) for seen in done[:_STARTS])
        best = max(tops, key=lambda point: _value(drawn, point))
        if best not in tried:
            return best
        fresh = [
            found for point in tops if (found := _best_near(domain, drawn, point, tried, draws)) is not None
        ]
        return max(fresh, key=lambda point: _value(drawn, point)) if fresh else anything(domain, draws, tried)

    def _posterior(self, domain: Domain) -> PairwisePosterior:
        variables = tuple(domain.variables)
        if variables not in self._posteriors:
            self._posteriors.clear()
            self._posteriors[variables] = PairwisePosterior(Layout.of(variables))
        return self._posteriors[variables]


def targets(known: Sequence[Observation]) -> Float[np.ndarray, " N"]:
    """Return the scores with mean 0 and standard deviation 1; what failed counts as the worst.

    Args:
        known: Done or failed; at least one is done.
    """
    scores = np.array([seen.scores[0] if seen.state == "done" else -np.inf for seen in known])
    done = scores[np.isfinite(scores)]
    middle, high = np.quantile(done, [0.5, 0.9])
    scores = np.maximum(scores, max(done.min(), middle - _SPREAD * (high - middle)))
    spread = float(scores.std())
    return (scores - scores.mean()) / (spread or 1.0)


def climb(domain: Domain, function: PairwiseFunction, point: Point) -> Point:
    """Change one choice at a time, each time the feasible one that gains most, until none gains."""
    for _ in range(_STEPS):
        higher = next(_steps(domain, function, point), None)
        if higher is None:
            return point
        point = higher
    return point


def _steps(domain: Domain, function: PairwiseFunction, point: Point) -> Iterator[Point]:
    """Give the feasible neighbours that gain, those that promise most first."""
    value = _value(function, point)
    for gain, other in _changed(function, point):
        if gain <= _LEAST_GAIN:
            return
        found = domain.canonical(other)
        # What is canonical may differ in more choices than the one that was changed.
        if domain.is_feasible(found) and (found == other or _value(function, found) > value + _LEAST_GAIN):
            yield found


def _best_near(
    domain: Domain, function: PairwiseFunction, point: Point, tried: Collection[Point], draws: Random
) -> Point | None:
    for _, other in _changed(function, point):
        found = domain.canonical(other)
        if found not in tried and domain.is_feasible(found):
            return found
    return near(domain, point, draws, tried)


def _changed(function: PairwiseFunction, point: Point) -> Iterator[tuple[float, Point]]:
    """Give each change of one choice with what it gains, the largest gain first."""
    layout, gains = function.layout, function.gains(point)
    for position in np.argsort(-gains, kind="stable").tolist():
        variable = int(layout.variable_of[position])
        value = position - int(layout.starts[variable])
        if value != point[variable]:
            yield float(gains[position]), (*point[:variable], value, *point[variable + 1 :])


def _value(function: PairwiseFunction, point: Point) -> float:
    return float(function.values([point])[0])
