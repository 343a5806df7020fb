"""Whether a network is right as often as it says.

Guo et al. 2017, On Calibration of Modern Neural Networks (1706.04599). Dimension key: N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from effnet.errors import UserError
from effnet.evaluation.answers import Answers
from effnet.evaluation.metrics import judge
from effnet.evaluation.predicted import predicted_classes
from effnet.evaluation.temperature import cross_fitted, fit_temperature, scaled_by


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Images whose answers have about the same confidence."""

    lower: float
    """Confidences above this one; in the first bin also the same."""
    upper: float
    """Confidences up to this one."""
    images: int
    accuracy: float
    """Share of the images that are answered rightly."""
    confidence: float
    """Mean confidence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How far confidence is from accuracy, as the network is and with a temperature."""

    ece: float
    """Expected calibration error (section 2): mean distance of accuracy and confidence over the bins,
    weighted by images. Few images make it larger than it is."""
    bins: tuple[Bin, ...]
    """Of equal width, ascending; those without an image are left out."""
    loss: float
    """Mean over the images, in nats, as `effnet.evaluation.metrics.Scores` has it."""
    temperature: float
    """What to divide logits by for the smallest loss; above 1, the network is too sure. Fitted on all
    images."""
    ece_after: float | None
    """The error with temperature. Cross-fitted: each of five parts of the images gets the temperature that
    fits the other four, so no image is measured with what was fitted on it. None: there are fewer than two
    images."""
    bins_after: tuple[Bin, ...]
    """Cross-fitted as ``ece_after``."""
    loss_after: float | None
    """Cross-fitted as ``ece_after``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under their names."""
        return asdict(self)


def calibration(answers: Answers, *, bins: int = 15, seed: int = 0) -> Calibration:
    """Return how far the confidence of answers is from their accuracy, without and with temperature.

    Args:
        answers: Of images with one label each.
        bins: How many, of equal width between 0 and 1.
        seed: Of the parts that take turns in fitting the temperature.

    Raises:
        UserError: Images have several labels, or there is no bin.
    """
    if bins < 1:
        raise UserError(f"a calibration error needs at least one bin, got {bins}")
    before = reliability(answers, bins=bins)
    scaled = scaled_by(answers, cross_fitted(answers, seed=seed)) if len(answers) > 1 else None
    after = () if scaled is None else reliability(scaled, bins=bins)
    return Calibration(
        ece=calibration_error(before),
        bins=before,
        loss=_loss(answers),
        temperature=fit_temperature(answers),
        ece_after=None if scaled is None else calibration_error(after),
        bins_after=after,
        loss_after=None if scaled is None else _loss(scaled),
    )


def reliability(answers: Answers, *, bins: int) -> tuple[Bin, ...]:
    """Return accuracy and mean confidence of the images whose confidence is in each bin.

    The confidence is the largest probability, NaN counts as 1.

    Raises:
        UserError: Images have several labels.
    """
    is_right = predicted_classes(answers) == answers.labels
    confidences = np.nan_to_num(answers.probabilities, nan=1.0).max(1).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    # Bin m has confidences above m / M and up to (m + 1) / M.
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    right = np.bincount(places, weights=is_right, minlength=bins)
    sums = np.bincount(places, weights=confidences, minlength=bins)
    return tuple(
        Bin(
            lower=float(edges[place]),
            upper=float(edges[place + 1]),
            images=int(counts[place]),
            accuracy=float(right[place] / counts[place]),
            confidence=float(sums[place] / counts[place]),
        )
        for place in np.flatnonzero(counts)
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of accuracy and confidence, weighted by images (section 2, equation 3)."""
    images = sum(part.images for part in bins)
    return sum(part.images * abs(part.accuracy - part.confidence) for part in bins) / images


def _loss(answers: Answers) -> float:
    logits, labels = torch.from_numpy(answers.logits), torch.from_numpy(answers.labels)
    return judge(logits, labels, answers.output)[:, 2].mean().item()
