"""How well each class is found: precision, recall and F1, where an image has one label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from effnet.evaluation.answers import Answers
from effnet.evaluation.predicted import predicted_classes


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """How well a class is found, or the mean over classes. Fractions."""

    name: str
    precision: float
    """Share of the images answered with this class that have it; 0 where there is none."""
    recall: float
    """Share of the images of this class that are answered with it."""
    f1: float
    """Harmonic mean of both."""
    support: int
    """Images of this class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassReport:
    """Every class that has an image, in the order of the logits, and their means."""

    classes: tuple[ClassScores, ...]
    macro: ClassScores
    """Mean over the classes that have an image; its recall is the balanced accuracy."""
    weighted: ClassScores
    """Mean weighted by the classes' numbers of images; its recall is the top-1 accuracy."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under their names."""
        return asdict(self)


def report_of(answers: Answers) -> ClassReport:
    """Return precision, recall and F1 of every class that has an image, by scikit-learn.

    A class without an image has no recall, so it has no line and no part in the means; images that are
    answered with such a class count as missed by their own.

    Raises:
        UserError: Images have several labels.
    """
    from sklearn.metrics import precision_recall_fscore_support  # noqa: PLC0415 - a fifth of a second, and training does not need it

    predicted = predicted_classes(answers)
    present = np.unique(answers.labels)

    def scores(average: str | None) -> tuple[Any, Any, Any, Any]:
        return precision_recall_fscore_support(
            answers.labels, predicted, labels=present, average=average, zero_division=0.0
        )

    names = [answers.class_names[index] for index in present]
    classes = tuple(
        ClassScores(name=name, precision=float(p), recall=float(r), f1=float(f), support=int(s))
        for name, p, r, f, s in zip(names, *scores(None), strict=True)
    )
    return ClassReport(
        classes=classes, macro=_mean("macro", scores, answers), weighted=_mean("weighted", scores, answers)
    )


def _mean(average: str, scores: Any, answers: Answers) -> ClassScores:  # noqa: ANN401 - a local function
    precision, recall, f1, _ = scores(average)
    return ClassScores(
        name=average, precision=float(precision), recall=float(recall), f1=float(f1), support=len(answers)
    )
