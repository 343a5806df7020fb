"""Whether one network is better than another on the same images, beyond chance.

Dimension key: N images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from effnet.errors import UserError
from effnet.evaluation.answers import Answers
from effnet.evaluation.interval import Interval, mean_interval
from effnet.evaluation.metrics import judge
from effnet.evaluation.predicted import check_one_label


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two networks on the same images, image by image."""

    images: int
    top1_first: float
    top1_second: float
    difference: Interval
    """Top-1 of the first less that of the second, with the interval of a paired bootstrap."""
    loss_difference: Interval
    """Loss of the first less that of the second, likewise; below 0 where the first is better."""
    both_right: int
    only_first: int
    """Images that only the first network answers rightly."""
    only_second: int
    both_wrong: int
    p_value: float
    """Of the exact McNemar test, two-sided: how likely the images that only one network answers rightly would
    be shared out at least so unequally if both were as good."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under their names."""
        return asdict(self)


def compare(
    first: Answers, second: Answers, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two networks by what each says to the same images.

    Args:
        first: Of one network.
        second: Of another one, to the same images in the same order; its classes may have another order.
        confidence: Of the intervals, as of `effnet.evaluation.interval.interval`.
        resamples: Likewise.
        seed: Likewise.

    Raises:
        UserError: The images or their true classes differ, or images have several labels.
    """
    check_same_images(first, second)
    check_one_label(first)
    right_first, loss_first = _judged(first)
    right_second, loss_second = _judged(second)
    only_first = int((right_first > right_second).sum())
    only_second = int((right_first < right_second).sum())
    unequal = only_first + only_second

    def difference(
        values: Float64[np.ndarray, " N"],
        others: Float64[np.ndarray, " N"],
        bounds: tuple[float, float] | None,
    ) -> Interval:
        return mean_interval(
            values - others, bounds=bounds, confidence=confidence, resamples=resamples, seed=seed
        )

    from scipy.stats import binomtest  # noqa: PLC0415 - half a second, and training does not need it

    return Comparison(
        images=len(first),
        top1_first=float(right_first.mean()),
        top1_second=float(right_second.mean()),
        difference=difference(right_first, right_second, (-1.0, 1.0)),
        loss_difference=difference(loss_first, loss_second, None),
        both_right=int((right_first * right_second).sum()),
        only_first=only_first,
        only_second=only_second,
        both_wrong=int(((1 - right_first) * (1 - right_second)).sum()),
        p_value=float(binomtest(only_first, unequal).pvalue) if unequal else 1.0,
    )


def check_same_images(first: Answers, second: Answers) -> None:
    """Refuse answers that cannot be compared image by image.

    Raises:
        UserError: Number, order, names or true classes of the images differ.
    """
    if len(first) != len(second):
        raise UserError(
            f"only answers to the same images can be compared, got {len(first)} and {len(second)} images"
        )
    if first.names != second.names:
        place = next(
            i for i, pair in enumerate(zip(first.names, second.names, strict=True)) if len(set(pair)) > 1
        )
        raise UserError(
            "only answers to the same images in the same order can be compared; image "
            f"{place} is {first.names[place]} for one and {second.names[place]} for the other"
        )
    for name, labels, others in zip(first.names, _true(first), _true(second), strict=True):
        if labels != others:
            raise UserError(
                f"only answers to the same images can be compared; {name} has the class "
                f"{' + '.join(sorted(labels))} for one and {' + '.join(sorted(others))} for the other"
            )


def _true(answers: Answers) -> list[frozenset[str]]:
    names = answers.class_names
    rows = answers.labels.reshape(len(answers), -1).tolist()
    return [frozenset(names[label] for label in row if label >= 0) for row in rows]


def _judged(answers: Answers) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, " N"]]:
    """Return whether each answer is right, and its loss."""
    _, places, losses = judge(
        torch.from_numpy(answers.logits), torch.from_numpy(answers.labels), answers.output
    ).T.numpy()
    return (places <= 1).astype(np.float64), losses
