"""A table that lacks most of its networks, continued to all by ridge regression on pairs of choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from effnet.search.points import Point
from effnet.search.strategies.pairwise import Layout, PairwiseFunction

Contributions: TypeAlias = dict[Point, float]
"""What each combination of the choices of a few variables adds."""

_RIDGE = 30.0
"""Of 3, 10, 30 and 100 best or next to it in cross-validation on Accel-NASBench's accuracies and times."""


def fit_pairwise(
    layout: Layout,
    points: Int[np.ndarray, "N V"],
    targets: Float[np.ndarray, "N T"],
    ridge: float = _RIDGE,
) -> list[PairwiseFunction]:
    """Fit functions of single choices and pairs of choices to the targets, by ridge regression.

    Args:
        layout: Of the variables.
        points: Where the targets are known.
        targets: A column for each function.
        ridge: What is added to the normal equations' diagonal, above 0.

    Returns:
        A function for each column.
    """
    marks = layout.one_hot(points)
    columns = _pair_columns(layout)
    features = np.hstack([marks, marks[:, columns[:, 0]] * marks[:, columns[:, 1]]])
    means = targets.mean(axis=0)
    normal = features.T @ features
    normal[np.diag_indices_from(normal)] += ridge
    weights = np.linalg.solve(normal, features.T @ (targets - means))
    return [
        _function(layout, columns, float(mean), column) for mean, column in zip(means, weights.T, strict=True)
    ]


def without_outliers(
    layout: Layout, points: Int[np.ndarray, "N V"], target: Float[np.ndarray, " N"], limit: float
) -> Float[np.ndarray, " N"]:
    """Pull what is further than ``limit`` from the additive model's value to that distance.

    A time of a machine that stalled says nothing about the network, but would bend the surrogate.
    """
    marks = layout.one_hot(points)
    kept = np.ones(len(target), dtype=bool)
    expected = np.full_like(target, np.median(target))
    for _ in range(3):
        mean = target[kept].mean()
        normal = marks[kept].T @ marks[kept] + np.eye(marks.shape[1])
        expected = mean + marks @ np.linalg.solve(normal, marks[kept].T @ (target[kept] - mean))
        kept = np.abs(target - expected) <= limit
    return expected + np.clip(target - expected, -limit, limit)


def fit_groups(
    points: Int[np.ndarray, "N V"], groups: Sequence[Sequence[int]], target: Float[np.ndarray, " N"]
) -> tuple[Contributions, ...]:
    """Fit a sum over groups of variables, each a table over all choices of its group, by least squares.

    Parameters of a network with fixed channels are exactly such a sum over its stages.

    Args:
        points: Where the target is known.
        groups: Indices of the variables of each group.
        target: Values.

    Returns:
        For each group, what each of its combinations adds; those that no point has are missing.
    """
    keys = [np.unique(points[:, list(group)], axis=0, return_inverse=True) for group in groups]
    marks = np.hstack([np.eye(len(combinations))[inverse.reshape(-1)] for combinations, inverse in keys])
    weights = np.linalg.lstsq(marks, target, rcond=None)[0]
    tables, start = [], 0
    for combinations, _ in keys:
        parts = weights[start : start + len(combinations)]
        tables.append(
            {tuple(map(int, key)): float(part) for key, part in zip(combinations, parts, strict=True)}
        )
        start += len(combinations)
    return tuple(tables)


def _pair_columns(layout: Layout) -> Int[np.ndarray, "P 2"]:
    values = np.arange(len(layout.variable_of))
    first, second = np.meshgrid(values, values, indexing="ij")
    kept = layout.variable_of[first] < layout.variable_of[second]
    return np.stack([first[kept], second[kept]], axis=1)


def _function(
    layout: Layout, columns: Int[np.ndarray, "P 2"], mean: float, weights: Float[np.ndarray, " F"]
) -> PairwiseFunction:
    count = len(layout.variable_of)
    pairs = np.zeros((count, count))
    pairs[columns[:, 0], columns[:, 1]] = weights[count:] / 2.0
    return PairwiseFunction(layout, mean, weights[:count], pairs + pairs.T)
