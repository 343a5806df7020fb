"""Bayesian regression on single choices and pairs of choices, and functions drawn from what it believes.

It is a Gaussian process whose kernel counts in how many variables two points agree: the same as ridge
regression on one-hot choices and their products, but it takes time by the points and not by the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.linalg import cholesky, solve_triangular

from effnet.search.points import Point
from effnet.search.strategies.pairwise import Layout, PairwiseFunction

# Of targets with mean 0 and variance 1. Pairs ten times as strong learn slower from noisy accuracies, see
# docs/log.md; noise from 0.03 to 0.1 makes no difference.
_SINGLE_VARIANCE = 1.0
_PAIR_VARIANCE = 0.1
_NOISE_VARIANCE = 0.1
_BLOCK = 16
"""Rows of the factor made at a time. It is made in the same blocks whether or not a part of it was kept from
an earlier call, so a search that was resumed comes to the same numbers, bit for bit."""


class PairwisePosterior:
    """What is believed of a function of points, given its noisy values at some.

    Work is kept from call to call where the points begin with the same ones; results do not depend on it.
    """

    def __init__(self, layout: Layout) -> None:
        count = len(layout.starts)
        self.layout = layout
        self._single = _SINGLE_VARIANCE / count
        self._pair = _PAIR_VARIANCE / max(count * (count - 1) / 2, 1.0)
        self._apart = layout.variable_of[:, None] != layout.variable_of[None, :]
        self._points: list[Point] = []
        self._inverse: Float[np.ndarray, "C C"] = np.zeros((0, 0))
        """Has room for more than the points; rows behind the last whole block are made anew each time."""

    def mean(self, points: Sequence[Point], targets: Float[np.ndarray, " N"]) -> PairwiseFunction:
        """Return the function expected from values at points."""
        nothing = np.zeros(len(self.layout.variable_of))
        return self._corrected(points, targets, PairwiseFunction(self.layout, 0.0, nothing, np.diag(nothing)))

    def draw(
        self, points: Sequence[Point], targets: Float[np.ndarray, " N"], generator: np.random.Generator
    ) -> PairwiseFunction:
        """Draw a function from the posterior: one of the prior, and its residuals (Matheron's rule)."""
        count = len(self.layout.variable_of)
        pairs = np.triu(generator.standard_normal((count, count))) * np.sqrt(self._pair) / 2.0
        prior = PairwiseFunction(
            self.layout,
            float(generator.standard_normal()),
            generator.standard_normal(count) * np.sqrt(self._single),
            (pairs + pairs.T) * self._apart,
        )
        noise = generator.standard_normal(len(points)) * np.sqrt(_NOISE_VARIANCE)
        return self._corrected(points, targets - noise, prior)

    def _corrected(
        self, points: Sequence[Point], targets: Float[np.ndarray, " N"], prior: PairwiseFunction
    ) -> PairwiseFunction:
        marks = self.layout.one_hot(points)
        inverse = self._inverse_of(list(points), marks)
        weights = inverse.T @ (inverse @ (targets - prior.values_of(marks)))
        return PairwiseFunction(
            self.layout,
            prior.constant + float(weights.sum()),
            prior.single + self._single * (marks.T @ weights),
            prior.pairs + self._pair / 2.0 * ((marks.T * weights) @ marks) * self._apart,
        )

    def _kernel(
        self, first: Float[np.ndarray, "A L"], second: Float[np.ndarray, "B L"]
    ) -> Float[np.ndarray, "A B"]:
        equal = first @ second.T
        return 1.0 + self._single * equal + self._pair * equal * (equal - 1.0) / 2.0

    def _inverse_of(self, points: list[Point], marks: Float[np.ndarray, "N L"]) -> Float[np.ndarray, "N N"]:
        """Return the inverse of the Cholesky factor of the noisy kernel, as it is until the next call."""
        count = len(points)
        if count > len(self._inverse):
            larger = np.zeros((2 * count, 2 * count))
            larger[: len(self._inverse), : len(self._inverse)] = self._inverse
            self._inverse = larger
        same = next(
            (i for i, (old, new) in enumerate(zip(self._points, points, strict=False)) if old != new),
            min(len(self._points), count),
        )
        for start in range(same - same % _BLOCK, count, _BLOCK):
            end = min(start + _BLOCK, count)
            block = self._kernel(marks[start:end], marks[start:end])
            block[np.diag_indices_from(block)] += _NOISE_VARIANCE
            above = self._inverse[:start, :start]
            side = self._kernel(marks[start:end], marks[:start]) @ above.T
            factor = cholesky(block - side @ side.T, lower=True, check_finite=False)
            own = solve_triangular(factor, np.eye(end - start), lower=True, check_finite=False)
            self._inverse[start:end, :start] = -own @ (side @ above)
            self._inverse[start:end, start:end] = own
        self._points = points
        return self._inverse[:count, :count]
