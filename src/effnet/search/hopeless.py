"""Which candidates are not worth training, whatever they may learn: they would take too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from effnet.arch.spec import NetworkSpec
from effnet.search.front import dominates
from effnet.search.measures import Measures
from effnet.search.objective import Objective
from effnet.search.predictor import StepTimePredictor

FEWEST = 10
"""Candidates that must have been trained before one is judged by them."""


def why_hopeless(
    predictor: StepTimePredictor,
    spec: NetworkSpec,
    known: Measures,
    done: Sequence[Measures],
    objective: Objective,
    *,
    reference_ms: float,
    max_step_ms: float | None = None,
) -> str:
    """Judge a candidate by the time that its training step will take.

    It is hopeless where the least time that is likely is over the bound; or where a candidate that was
    trained is better even if this one took the time that suits it best, and were as much more accurate than
    the best so far as that is than the middle.

    Args:
        predictor: Of ratios to the reference network.
        spec: The candidate.
        known: What is known of it without measuring, such as its parameters. A cost that is neither known
            nor the step's time is not judged by.
        done: Of the candidates that were trained to the end.
        objective: Of the search.
        reference_ms: The study's reference, in milliseconds.
        max_step_ms: The bound; None: there is none.

    Returns:
        The reason, or nothing where it may be worth training.
    """
    low, high = (ratio * reference_ms for ratio in predictor.between(spec))
    if max_step_ms is not None and low > max_step_ms:
        return f"its step takes at least {low:.4g} ms by prediction, and {max_step_ms:g} ms are allowed"
    accuracies = [one.accuracy for one in done if one.accuracy is not None]
    if "step_ms" not in objective.needs or len(accuracies) < FEWEST:
        return ""
    best = max(accuracies)
    hoped = replace(known, accuracy=min(best + (best - median(accuracies)), 1.0))
    times = [low, high]
    if objective.kind == "absolute" and objective.target is not None:
        times.append(min(max(objective.target, low), high))
    candidates = [replace(hoped, step_ms=time) for time in times]
    if not all(_has_all(one, objective) for one in candidates):
        return ""
    reached = [objective.scores(one) for one in done if _has_all(one, objective)]
    wished = [objective.scores(one) for one in candidates]
    if all(any(dominates(score, wish) for score in reached) for wish in wished):
        return (
            f"its step takes {low:.4g} to {high:.4g} ms by prediction, too long even at an accuracy of "
            f"{hoped.accuracy:.3f}"
        )
    return ""


def _has_all(measures: Measures, objective: Objective) -> bool:
    return all(getattr(measures, name) is not None for name in objective.needs)
