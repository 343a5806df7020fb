"""Accuracy of trained networks at several image sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from effnet.api.answering import AnswerSettings, answer_together
from effnet.arch import NetworkSpec, network_cost
from effnet.data.images import LabelledImages
from effnet.evaluation.assessment import scores_of, top1_interval
from effnet.evaluation.interval import Interval
from effnet.evaluation.multilabel import AnyScores
from effnet.evaluation.predictor import Predictor

_AS_WEIGHTS_SAY = AnswerSettings()


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeScores:
    """How well networks do at one image size."""

    image_size: int
    """Pixels a side."""
    scores: AnyScores
    top1: Interval
    macs: int | None
    """Multiply-adds of all networks for one view of an image; None where a network does not tell its
    layers."""

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers under their names; those of ``scores`` stand at the top."""
        return {
            "image_size": self.image_size,
            "macs": self.macs,
            **self.scores.to_dict(),
            "intervals": {"top1": self.top1.to_dict()},
        }


def sweep_sizes(
    members: Sequence[Predictor],
    images: LabelledImages,
    sizes: Sequence[int],
    settings: AnswerSettings = _AS_WEIGHTS_SAY,
    *,
    confidence: float = 0.95,
    report: Callable[[int, int], None] | None = None,
) -> tuple[SizeScores, ...]:
    """Measure networks at several image sizes; crop and interpolation stay those of the weights.

    Args:
        members: Networks that answer together; at least one.
        images: With labels.
        sizes: Pixels a side.
        settings: How the networks are asked; its image size has no part.
        confidence: Of the intervals.
        report: Told how many images have been answered, and of how many, over all sizes.

    Raises:
        UserError: As `answer_together`.
    """
    found = []
    for place, size in enumerate(sizes):
        answers = answer_together(
            members,
            images,
            replace(settings, image_size=size),
            report=_after(report, place, len(sizes)),
        )
        found.append(
            SizeScores(
                image_size=size,
                scores=scores_of(answers),
                top1=top1_interval(answers, confidence=confidence),
                macs=_macs(members, size),
            )
        )
    return tuple(found)


def _macs(members: Sequence[Predictor], size: int) -> int | None:
    specs = [getattr(member.model, "spec", None) for member in members]
    known = [network_cost(spec, size).macs for spec in specs if isinstance(spec, NetworkSpec)]
    return sum(known) if len(known) == len(specs) else None


def _after(
    report: Callable[[int, int], None] | None, place: int, parts: int
) -> Callable[[int, int], None] | None:
    return None if report is None else lambda done, every: report(place * every + done, parts * every)
