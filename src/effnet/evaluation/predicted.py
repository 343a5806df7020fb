"""Which class a network answers, with one label an image, by the rule that accuracy has.

Dimension key: N images, K classes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from effnet.errors import UserError
from effnet.evaluation.answers import Answers


def predicted_classes(answers: Answers) -> Int64[np.ndarray, " N"]:
    """Return the class with the largest logit of each image.

    Where the true class shares the largest logit with another one, it is the other one, and NaN counts as the
    largest, so an answer is right here exactly where `effnet.evaluation.metrics.judge` calls it right.

    Raises:
        UserError: Images have several labels.
    """
    check_one_label(answers)
    labels, rows = answers.labels, np.arange(len(answers))
    others = np.where(np.isnan(answers.logits), np.inf, answers.logits)
    others[rows, labels] = -np.inf
    rivals = others.argmax(1)
    if answers.logits.shape[1] == 1:
        return labels.copy()
    return np.where(answers.logits[rows, labels] > others[rows, rivals], labels, rivals)


def check_one_label(answers: Answers) -> None:
    """Refuse images with several labels, for which there are other numbers.

    Raises:
        UserError: Images have several labels.
    """
    if answers.labels.ndim > 1:
        raise UserError(
            "these images have several labels, for which there is no confusion matrix, calibration of the "
            "first answer or paired test; see effnet.evaluation.label_report"
        )
