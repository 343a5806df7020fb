"""How much a score would vary with other images of the same kind: bootstrap intervals.

Images are drawn with replacement from all, not class by class: a data set is taken for a sample of images,
whose classes would have come in other numbers as well. Such intervals are wider than stratified ones.
Dimension key: N images, M drawn ones, B resamples, K classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64

from effnet.errors import UserError
from effnet.evaluation.answers import Answers
from effnet.evaluation.metrics import judge
from effnet.evaluation.predicted import check_one_label, predicted_classes

Metric = Literal["top1", "top5", "loss", "macro_f1", "macro_recall"]
METRICS: tuple[Metric, ...] = ("top1", "top5", "loss", "macro_f1", "macro_recall")
MOST_ACCELERATED = 2000
"""Images up to which intervals are bias-corrected and accelerated; that takes each image out once. With more,
percentiles are as good."""
_DRAWN_AT_ONCE = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A score, and between what it lies."""

    value: float
    low: float
    high: float
    confidence: float
    """How often such an interval holds the score of all images of the kind."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under their names."""
        return asdict(self)


def interval(
    answers: Answers,
    metric: Metric = "top1",
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a score with its bootstrap interval.

    Args:
        answers: Of images with one label each.
        metric: ``top1``, ``top5``, ``loss`` as `effnet.evaluation.metrics.Scores` has them; ``macro_f1`` and
            ``macro_recall`` as the report of the classes, over the classes that a resample has.
        confidence: How often intervals shall hold the score of all images of the kind; above 0, below 1.
        resamples: How often images are drawn anew.
        seed: Of the drawing.

    Raises:
        UserError: The confidence is out of range, or images have several labels.
    """
    check_one_label(answers)
    _, places, losses = judge(
        torch.from_numpy(answers.logits), torch.from_numpy(answers.labels), answers.output
    ).T.numpy()
    is_right = places <= 1
    # Where all answers are right, or none is, means over classes are as certain as the mean over images.
    if metric.startswith("macro") and is_right.any() and not is_right.all():
        return interval_of(
            _macro(answers, metric), len(answers), confidence=confidence, resamples=resamples, seed=seed
        )
    values = (losses if metric == "loss" else places <= (5 if metric == "top5" else 1)).astype(np.float64)
    bounds = None if metric == "loss" else (0.0, 1.0)
    return mean_interval(values, bounds=bounds, confidence=confidence, resamples=resamples, seed=seed)


def mean_interval(
    values: Float64[np.ndarray, " N"],
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a mean over images with its bootstrap interval.

    Args:
        values: Of the images.
        bounds: Between what values lie, where all that lie between are counts of something: right or wrong.
            If then all values are equal, drawing again says nothing, and the interval reaches as far as a
            share of images of which none was seen may (Clopper and Pearson 1934).
        confidence: As in `interval`.
        resamples: As in `interval`.
        seed: As in `interval`.
    """
    value, images = float(values.mean()), len(values)
    if np.ptp(values) == 0:
        reach = 0.0 if bounds is None else 1 - ((1 - confidence) / 2) ** (1 / images)
        low, high = bounds or (value, value)
        return Interval(
            value=value, low=max(low, value - reach), high=min(high, value + reach), confidence=confidence
        )
    return interval_of(
        lambda rows: values[rows].mean(-1), images, confidence=confidence, resamples=resamples, seed=seed
    )


def interval_of(
    statistic: Callable[[Int64[np.ndarray, "*batch M"]], Float64[np.ndarray, "*batch"]],
    images: int,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return any score with its bootstrap interval.

    Args:
        statistic: The score of images by their numbers, which may be repeated; of many resamples at once.
        images: How many there are.
        confidence: As in `interval`.
        resamples: As in `interval`.
        seed: As in `interval`.

    Raises:
        UserError: The confidence is not between 0 and 1.
    """
    from scipy.stats import bootstrap  # noqa: PLC0415 - half a second, and training does not need it

    if not 0 < confidence < 1:
        raise UserError(f"the confidence of an interval must be above 0 and below 1, got {confidence:g}")
    rows, value = np.arange(images), float(statistic(np.arange(images)))

    def drawn(method: Literal["BCa", "percentile"]) -> tuple[float, float]:
        result = bootstrap(
            (rows,),
            lambda sample, axis: statistic(sample),
            vectorized=True,
            method=method,
            confidence_level=confidence,
            n_resamples=resamples,
            batch=max(_DRAWN_AT_ONCE // images, 1),
            rng=np.random.default_rng(seed),
        )
        return float(result.confidence_interval.low), float(result.confidence_interval.high)

    with warnings.catch_warnings():
        # Where the score of all resamples is the same, acceleration is 0 / 0.
        warnings.simplefilter("ignore")
        low, high = drawn("BCa") if images <= MOST_ACCELERATED else (math.nan, math.nan)
    if math.isnan(low) or math.isnan(high):
        low, high = drawn("percentile")
    return Interval(value=value, low=low, high=high, confidence=confidence)


def _macro(
    answers: Answers, metric: Metric
) -> Callable[[Int64[np.ndarray, "*batch M"]], Float64[np.ndarray, "*batch"]]:
    labels, predicted = answers.labels, predicted_classes(answers)
    right, classes = np.where(labels == predicted, labels, len(answers.class_names)), len(answers.class_names)

    def counts(values: Int64[np.ndarray, " N"], rows: Int64[np.ndarray, "B M"]) -> Int64[np.ndarray, "B K"]:
        # One more class has the images that count for none.
        cells = values[rows] + (classes + 1) * np.arange(len(rows))[:, None]
        found = np.bincount(cells.ravel(), minlength=len(rows) * (classes + 1))
        return found.reshape(len(rows), classes + 1)[:, :classes]

    def means(rows: Int64[np.ndarray, "*batch M"]) -> Float64[np.ndarray, "*batch"]:
        flat = rows.reshape(-1, rows.shape[-1])
        support, part = counts(labels, flat), counts(right, flat)
        whole = support
        if metric == "macro_f1":
            whole, part = support + counts(predicted, flat), 2 * part
        # A class without an image has part 0, so it adds nothing to the sum.
        shares = (part / np.maximum(whole, 1)).sum(1) / (support > 0).sum(1)
        return shares.reshape(rows.shape[:-1])

    return means
