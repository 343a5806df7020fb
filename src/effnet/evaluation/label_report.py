"""How well each class is found where images may have several labels, by scikit-learn.

Dimension key: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from effnet.errors import UserError
from effnet.evaluation.answers import Answers


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScores:
    """How well a label is found, or the mean over labels. Fractions."""

    name: str
    average_precision: float
    """Mean precision over the images that have the label, in the order of its probability; needs no
    threshold."""
    precision: float
    """Share of the images said to have the label that have it; 0 where there is none."""
    recall: float
    """Share of the images with the label that are said to have it."""
    f1: float
    """Harmonic mean of both."""
    support: int
    """Images with the label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelReport:
    """Every class that an image has, in the order of the logits, and their means."""

    threshold: float
    """Probability from which an image is said to have a label."""
    classes: tuple[LabelScores, ...]
    macro: LabelScores
    """Mean over the classes that an image has; its average precision is what is called mAP."""
    micro: LabelScores
    """Over all pairs of an image and one of these classes."""
    weighted: LabelScores
    """Mean weighted by the classes' numbers of images."""
    exact: float
    """Share of the images whose labels are all found and no other."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under their names."""
        return asdict(self)


def label_report_of(answers: Answers, *, threshold: float = 0.5) -> LabelReport:
    """Return average precision, precision, recall and F1 of every class that an image has.

    Args:
        answers: Of images with one or several labels each. A probability that is NaN counts as 0.
        threshold: Probability from which an image is said to have a label; above 0, below 1.

    Raises:
        UserError: The threshold is out of range.
    """
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support  # noqa: PLC0415 - a fifth of a second, and training does not need it

    if not 0 < threshold < 1:
        raise UserError(f"a threshold of probabilities must be above 0 and below 1, got {threshold:g}")
    truth = truth_of(answers)
    present = np.flatnonzero(truth.any(0))
    probabilities = np.nan_to_num(answers.probabilities, nan=0.0)
    # A class that no image has, as scikit-learn takes a single column for two classes; it counts nowhere.
    truth, probabilities = (np.pad(array[:, present], ((0, 0), (0, 1))) for array in (truth, probabilities))
    counted = np.arange(len(present))

    def scores(average: str | None) -> tuple[Any, ...]:
        return precision_recall_fscore_support(
            truth, probabilities >= threshold, labels=counted, average=average, zero_division=0.0
        )[:3]

    def mean(average: str) -> LabelScores:
        area = average_precision_score(truth[:, counted], probabilities[:, counted], average=average)
        return _scores(average, (area, *scores(average)), int(truth.sum()))

    areas = [average_precision_score(truth[:, place], probabilities[:, place]) for place in counted]
    return LabelReport(
        threshold=threshold,
        classes=tuple(
            _scores(answers.class_names[present[place]], row, int(truth[:, place].sum()))
            for place, row in enumerate(zip(areas, *scores(None), strict=True))
        ),
        macro=mean("macro"),
        micro=mean("micro"),
        weighted=mean("weighted"),
        exact=float(is_exact(answers, threshold).mean()),
    )


def truth_of(answers: Answers) -> Bool[np.ndarray, "N K"]:
    """Return which image has which labels."""
    truth = np.zeros(answers.logits.shape, bool)
    rows = answers.labels.reshape(len(answers), -1)
    images, places = np.nonzero(rows >= 0)
    truth[images, rows[images, places]] = True
    return truth


def is_exact(answers: Answers, threshold: float) -> Bool[np.ndarray, " N"]:
    """Return of which images all labels are found and no other."""
    return (truth_of(answers) == (answers.probabilities >= threshold)).all(1)


def _scores(name: str, values: Sequence[Any], support: int) -> LabelScores:
    area, precision, recall, f1 = map(float, values)
    return LabelScores(
        name=name, average_precision=area, precision=precision, recall=recall, f1=f1, support=support
    )
