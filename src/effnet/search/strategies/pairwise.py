"""Functions of a point that are sums over single choices and over pairs of choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from effnet.search.points import Point, Variable

# Dimension key: N points, V variables, L values of all variables together, one after the other.


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each value of each variable stands among all values."""

    starts: Int[np.ndarray, " V"]
    variable_of: Int[np.ndarray, " L"]

    @classmethod
    def of(cls, variables: Sequence[Variable]) -> Layout:
        """Return the layout of the variables, in their order."""
        sizes = np.array([len(variable.values) for variable in variables], dtype=np.int64)
        return cls(np.cumsum(sizes) - sizes, np.repeat(np.arange(len(sizes)), sizes))

    def positions(self, points: Sequence[Point] | Int[np.ndarray, "N V"]) -> Int[np.ndarray, "N V"]:
        """Return for each point and variable where the chosen value stands."""
        return np.asarray(points, dtype=np.int64).reshape(-1, len(self.starts)) + self.starts

    def one_hot(self, points: Sequence[Point] | Int[np.ndarray, "N V"]) -> Float[np.ndarray, "N L"]:
        """Return 1 for each chosen value and 0 for the others."""
        positions = self.positions(points)
        marks = np.zeros((len(positions), len(self.variable_of)))
        np.put_along_axis(marks, positions, 1.0, axis=1)
        return marks


@dataclass(frozen=True, slots=True)
class PairwiseFunction:
    """``constant`` + the sums of ``single`` over chosen values and ``pairs`` over ordered pairs of them."""

    layout: Layout
    constant: float
    single: Float[np.ndarray, " L"]
    pairs: Float[np.ndarray, "L L"]
    """Symmetric, so each pair counts twice; 0 between values of one variable."""

    def values(self, points: Sequence[Point] | Int[np.ndarray, "N V"]) -> Float[np.ndarray, " N"]:
        """Return the value of each point."""
        return self.values_of(self.layout.one_hot(points))

    def values_of(self, marks: Float[np.ndarray, "N L"]) -> Float[np.ndarray, " N"]:
        """Return the value of each point, given as one-hot choices."""
        return self.constant + marks @ self.single + np.einsum("nl,nl->n", marks @ self.pairs, marks)

    def gains(self, point: Point) -> Float[np.ndarray, " L"]:
        """Return what the function would gain were the variable of each value set to that value."""
        chosen = self.layout.positions([point])[0]
        slopes = self.single + 2.0 * self.pairs[:, chosen].sum(axis=1)
        return slopes - slopes[chosen][self.layout.variable_of]
