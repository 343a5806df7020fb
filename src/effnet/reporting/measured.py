"""What the best weights of a run come to on its validation images, asked anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Int64

from effnet.api.using import load
from effnet.data.images import DataSplit
from effnet.errors import UserError
from effnet.evaluation.answers import Answers, answer_images
from effnet.evaluation.assessment import scores_of
from effnet.evaluation.calibration import Calibration, calibration
from effnet.evaluation.class_report import ClassReport, report_of
from effnet.evaluation.comparison import Comparison, compare
from effnet.evaluation.confusion import Confusion, confusion, most_confused
from effnet.evaluation.interval import Interval, interval
from effnet.evaluation.multilabel import AnyScores
from effnet.evaluation.predictor import Predictor
from effnet.reporting.facts import RunFacts
from effnet.reporting.missing import Missing, attempt

_PAIRS = 10
_MOST_IN_MATRIX = 4000


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OneLabel:
    """What is only defined where an image has one label."""

    top1: Interval
    classes: ClassReport
    matrix: Int64[np.ndarray, "K K"] | None
    """Images of each class (rows) by answer (columns); None where there are more than 4,000 classes."""
    confused: tuple[Confusion, ...]
    """Most frequent first."""
    calibration: Calibration


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Measured:
    """A network's answers to the validation images, and what they come to."""

    predictor: Predictor
    answers: Answers
    scores: AnyScores
    one_label: OneLabel | None
    """None where images may have several labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The first run beside another one."""

    first: str
    second: str
    comparison: Comparison | Missing


def measure(facts: RunFacts, data: DataSplit, *, device: str, batch_size: int) -> Measured:
    """Ask the best weights of a run about its validation images.

    Args:
        facts: Of the run.
        data: Its images.
        device: As ``train.device``.
        batch_size: Images at a time.

    Raises:
        UserError: There are no weights, they cannot be used, or no image can be read.
    """
    predictor = load(facts.path, device=device)
    answers = answer_images(
        predictor.model,
        data.val.with_classes(predictor.class_names),
        predictor.preprocessing,
        device=predictor.device,
        batch_size=batch_size,
        output=predictor.output,
    )
    is_single = answers.labels.ndim == 1
    return Measured(
        predictor=predictor,
        answers=answers,
        scores=scores_of(answers),
        one_label=_of_one_label(answers) if is_single else None,
    )


def measure_if_possible(
    facts: RunFacts, data: DataSplit | Missing, *, evaluates: bool, device: str, batch_size: int
) -> Measured | Missing:
    """Return what `measure` does, or a sentence that says why there is nothing to measure.

    Args:
        facts: Of the run.
        data: Its images, or why they cannot be had.
        evaluates: Whether the network may be asked at all.
        device: As ``train.device``.
        batch_size: Images at a time.
    """
    if not evaluates:
        return Missing("not evaluated, as --no-evaluate was given")
    if not facts.has_weights:
        return Missing("it has not been evaluated in training yet, so it has no weights to ask")
    if isinstance(data, Missing):
        return Missing(f"its images cannot be had: {data.reason}")
    return attempt(partial(measure, facts, data, device=device, batch_size=batch_size))


def compare_with_first(names: Sequence[str], measured: Sequence[Measured | Missing]) -> tuple[Pair, ...]:
    """Test the first of some runs against each other one, image by image.

    Args:
        names: Of the runs.
        measured: What each came to.
    """
    return tuple(
        Pair(first=names[0], second=name, comparison=_compared(measured[0], other))
        for name, other in zip(names[1:], measured[1:], strict=True)
    )


def _compared(first: Measured | Missing, second: Measured | Missing) -> Comparison | Missing:
    if isinstance(first, Missing):
        return first
    if isinstance(second, Missing):
        return second
    try:
        return compare(first.answers, second.answers)
    except UserError as error:
        return Missing(str(error))


def _of_one_label(answers: Answers) -> OneLabel:
    is_small = len(answers.class_names) <= _MOST_IN_MATRIX
    matrix = confusion(answers) if is_small else None
    return OneLabel(
        top1=interval(answers, "top1"),
        classes=report_of(answers),
        matrix=matrix,
        confused=() if matrix is None else most_confused(matrix, answers.class_names, most=_PAIRS),
        calibration=calibration(answers),
    )
