"""Which classes are taken for which.

Dimension key: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from effnet.evaluation.answers import Answers
from effnet.evaluation.predicted import predicted_classes


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """A class and one that its images are answered with."""

    label: str
    """The true class."""
    predicted: str
    """What the network says instead."""
    images: int
    """How often."""
    share: float
    """Of all images of the true class."""


def confusion(answers: Answers) -> Int64[np.ndarray, "K K"]:
    """Return how many images of each class (rows) are answered with which (columns).

    Raises:
        UserError: Images have several labels.
    """
    classes = len(answers.class_names)
    cells = answers.labels * classes + predicted_classes(answers)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def most_confused(
    matrix: Int64[np.ndarray, "K K"], class_names: Sequence[str], *, most: int = 10
) -> tuple[Confusion, ...]:
    """Return the pairs of classes that are confused most often, worst first.

    Args:
        matrix: Of `confusion`.
        class_names: In its order.
        most: How many pairs at most; those of equal frequency come in the order of the matrix.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    labels, predicted = np.nonzero(wrong)
    counts = wrong[labels, predicted]
    worst = np.argsort(-counts, kind="stable")[:most]
    of_class = matrix.sum(1)
    return tuple(
        Confusion(
            label=class_names[labels[place]],
            predicted=class_names[predicted[place]],
            images=int(counts[place]),
            share=float(counts[place] / of_class[labels[place]]),
        )
        for place in worst
    )
