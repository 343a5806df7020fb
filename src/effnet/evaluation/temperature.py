"""Temperature scaling: one number by which all logits are divided so that the loss is smallest.

Guo et al. 2017, On Calibration of Modern Neural Networks (1706.04599), section 4.2.
Dimension key: N images, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float32, Float64

from effnet.evaluation.answers import Answers
from effnet.evaluation.metrics import probabilities_of

FOLDS = 5
"""Parts of the images in `cross_fitted`."""
LOWEST, HIGHEST = 0.01, 100.0
"""Limits of a temperature: answers that are all right fit best at 0, those that say nothing at infinity."""


def fit_temperature(answers: Answers) -> float:
    """Return the temperature with the smallest loss, from 0.01 to 100.

    The loss is convex in ``1 / temperature``; of a softmax and of a sigmoid alike, its slope is the mean over
    the images of the logits' sum weighted by the probabilities, less the logit of the true class.

    Args:
        answers: Of images with one label each. Those with a logit that is not finite have no part.
    """
    logits = torch.from_numpy(answers.logits)
    is_finite = logits.isfinite().all(1)
    logits, labels = logits[is_finite], torch.from_numpy(answers.labels)[is_finite]
    if not len(logits):
        return 1.0
    own = logits.gather(1, labels[:, None]).double().mean().item()

    def slope(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        weights = probabilities_of(scaled, answers.output)
        return (weights * logits).sum(1).double().mean().item() - own

    from scipy.optimize import brentq  # noqa: PLC0415 - half a second, and training does not need it

    # The slope in 1 / temperature falls as the temperature rises.
    lowest, highest = math.log(LOWEST), math.log(HIGHEST)
    if slope(lowest) <= 0:
        return LOWEST
    if slope(highest) >= 0:
        return HIGHEST
    return math.exp(brentq(slope, lowest, highest, xtol=1e-5))


def cross_fitted(answers: Answers, *, seed: int) -> Float64[np.ndarray, " N"]:
    """Return for each image a temperature in whose fit it had no part.

    Args:
        answers: Of at least two images with one label each.
        seed: Which images are in which of the five parts; each part has the temperature of the others.
    """
    order = np.random.default_rng(seed).permutation(len(answers))
    temperatures = np.empty(len(answers))
    for part in np.array_split(order, min(FOLDS, len(answers))):
        others = np.setdiff1d(order, part)
        temperatures[part] = fit_temperature(answers.subset(others))
    return temperatures


def scaled_by(answers: Answers, temperature: float | Float64[np.ndarray, " N"]) -> Answers:
    """Return the answers with their logits divided by a temperature, or by one for each image."""
    logits: Float32[np.ndarray, "N K"] = (answers.logits.T / temperature).T.astype(np.float32)
    return answers.with_logits(logits)
