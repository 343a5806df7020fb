"""Everything that is measured of the answers of one network, or of several that answer together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from effnet.evaluation.answers import Answers
from effnet.evaluation.calibration import Calibration, calibration
from effnet.evaluation.class_report import ClassReport, report_of
from effnet.evaluation.confusion import Confusion, confusion, most_confused
from effnet.evaluation.interval import METRICS, Interval, interval, mean_interval
from effnet.evaluation.label_report import LabelReport, is_exact, label_report_of, truth_of
from effnet.evaluation.metrics import judge, score
from effnet.evaluation.multilabel import AnyScores, MultiLabelCounts


@dataclass(frozen=True, kw_only=True, slots=True)
class Assessment:
    """How well a network answers, how sure that is, and how sure the network should be."""

    scores: AnyScores
    """As `effnet.api.evaluate` returns them."""
    intervals: dict[str, Interval]
    """Of each score that has one: ``top1``, ``top5``, ``loss``, ``macro_f1``, ``macro_recall``; of images
    with several labels ``top1`` and ``exact``."""
    report: ClassReport | LabelReport
    calibration: Calibration | None
    """None where images have several labels."""
    confusions: tuple[Confusion, ...]
    """Every pair of classes that is confused, worst first; empty where images have several labels."""

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers under their names; those of ``scores`` stand at the top."""
        return {
            **self.scores.to_dict(),
            "intervals": {name: found.to_dict() for name, found in self.intervals.items()},
            "report": self.report.to_dict(),
            "calibration": self.calibration.to_dict() if self.calibration else None,
            "confusions": [asdict(pair) for pair in self.confusions],
        }


def assess(
    answers: Answers,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    bins: int = 15,
    threshold: float = 0.5,
) -> Assessment:
    """Measure all that can be measured.

    Args:
        answers: Of a network.
        confidence: Of the intervals; above 0, below 1.
        resamples: Of the bootstrap.
        bins: Of the calibration error.
        threshold: Probability from which an image is said to have a label, where images have several.

    Raises:
        UserError: A value is out of range.
    """
    if answers.labels.ndim > 1:
        return Assessment(
            scores=scores_of(answers),
            intervals={
                "top1": top1_interval(answers, confidence=confidence, resamples=resamples),
                "exact": _share(is_exact(answers, threshold), confidence, resamples),
            },
            report=label_report_of(answers, threshold=threshold),
            calibration=None,
            confusions=(),
        )
    matrix = confusion(answers)
    return Assessment(
        scores=scores_of(answers),
        intervals={
            metric: interval(answers, metric, confidence=confidence, resamples=resamples)
            for metric in METRICS
        },
        report=report_of(answers),
        calibration=calibration(answers, bins=bins),
        confusions=most_confused(matrix, answers.class_names, most=matrix.size),
    )


def scores_of(answers: Answers) -> AnyScores:
    """Return what `effnet.evaluation.evaluator.evaluate_model` says of the same logits."""
    logits, labels = torch.from_numpy(answers.logits), torch.from_numpy(answers.labels)
    if labels.ndim == 1:
        judged = judge(logits, labels, answers.output)
        return score(judged, answers.class_names, bad_images=len(answers.bad))
    counts = MultiLabelCounts(answers.output)
    counts.add(logits, labels)
    return counts.scores(bad_images=len(answers.bad))


def top1_interval(answers: Answers, *, confidence: float = 0.95, resamples: int = 2000) -> Interval:
    """Return the share of images whose first answer is right, or one of their labels, with its interval."""
    if answers.labels.ndim == 1:
        return interval(answers, "top1", confidence=confidence, resamples=resamples)
    first = np.nan_to_num(answers.logits, nan=np.inf).argmax(1)
    return _share(truth_of(answers)[np.arange(len(answers)), first], confidence, resamples)


def _share(holds: Bool[np.ndarray, " N"], confidence: float, resamples: int) -> Interval:
    return mean_interval(
        holds.astype(np.float64), bounds=(0.0, 1.0), confidence=confidence, resamples=resamples
    )
