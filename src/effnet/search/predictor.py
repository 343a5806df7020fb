"""How long a network's training step will take, learnt from networks that were measured.

A device does so much of each kind of work a second (`effnet.search.costs`), and no such speed is negative:
nine numbers, which a dozen measurements tell, and which hold for networks of any depth and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import nnls

from effnet.arch.spec import NetworkSpec
from effnet.search.costs import step_parts

FEWEST = 10
"""Measurements that a predictor needs."""
_FOLDS = 10
_ROUNDS = 10
_PULL = 0.01
"""Towards 0 and away from the others, relative to a measurement, so that parts that go together share."""
_TRUSTED = 1.5
"""Times the median error: what is further off is an outlier and pulls no harder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A network and what its training step took."""

    spec: NetworkSpec
    cost: float
    """Above 0, in a unit that is the same for all; in a study the ratio to the reference network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimePredictor:
    """Predicts in the unit of the measurements that `fit` had."""

    image_size: int
    images: int
    rates: tuple[float, ...]
    """Cost of one of each of `effnet.search.costs.PARTS`; none is negative."""
    error: float
    """Relative; nine of ten networks that took no part in the fit are no further off."""

    def predict(self, spec: NetworkSpec) -> float:
        """Return the cost of a network's training step."""
        parts = step_parts(spec, self.image_size, self.images)
        return sum(rate * part for rate, part in zip(self.rates, parts, strict=True))

    def between(self, spec: NetworkSpec) -> tuple[float, float]:
        """Return the least and the most that the step is likely to cost: `error` in both directions."""
        expected = self.predict(spec)
        return expected / (1 + self.error), expected * (1 + self.error)


def fit(measured: Sequence[Measured], image_size: int, images: int) -> StepTimePredictor | None:
    """Learn from measurements.

    Args:
        measured: On one device, with the same images. A few may be wrong, as where the machine stalled.
        image_size: Side of the images in pixels.
        images: In a step.

    Returns:
        The predictor; None: there are fewer than ten measurements.
    """
    if len(measured) < FEWEST:
        return None
    costs = np.array([one.cost for one in measured])
    parts = np.array([step_parts(one.spec, image_size, images) for one in measured])
    errors = np.empty(len(costs))
    for fold in range(_FOLDS):
        is_out = np.arange(len(costs)) % _FOLDS == fold
        rates = _rates(parts[~is_out], costs[~is_out])
        errors[is_out] = np.abs(parts[is_out] @ rates / costs[is_out] - 1)
    return StepTimePredictor(
        image_size=image_size,
        images=images,
        rates=tuple(map(float, _rates(parts, costs))),
        error=float(np.quantile(errors, 0.9)),
    )


def _rates(parts: Float[ndarray, "N P"], costs: Float[ndarray, " N"]) -> Float[ndarray, " P"]:
    """Return the rates that are not negative and make the relative errors small, outliers apart."""
    mean = parts.mean(0)
    mean[mean == 0] = 1.0
    rows = parts / mean * (costs.mean() / costs[:, None])
    pull = _PULL * np.eye(len(mean))
    trust = np.ones(len(costs))
    shares = np.zeros(len(mean))
    for _ in range(_ROUNDS):
        wanted = np.concatenate([trust, np.zeros(len(mean))])
        shares, _ = nnls(np.vstack([rows * trust[:, None], pull]), wanted)
        errors = np.abs(rows @ shares - 1)
        limit = _TRUSTED * 1.4826 * np.median(errors)
        trust = np.sqrt(np.minimum(1.0, limit / np.maximum(errors, 1e-9)))
    return np.asarray(shares / mean * costs.mean())
