"""Successive halving without waiting: candidates that others have left behind are not trained to the end.

Each candidate is compared, when it comes to a rung, with all that have come there before (1810.05934, in the
variant that stops instead of pausing). Where there are several scores, a candidate is behind another if it is
no better in any of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

_FEWEST_PAIRS = 4
_EXACT = 1e-9


def is_left_behind(own: Sequence[float], others: Sequence[Sequence[float]], eta: int) -> bool:
    """Whether a candidate is not among the best 1 / ``eta`` of those that have come to its rung.

    Args:
        own: Scores of the candidate; more is better.
        others: Scores of those that came before it.
        eta: From 2. Fewer than ``eta`` candidates are no comparison.
    """
    ahead = sum(_is_ahead(scores, own) for scores in others)
    number = len(others) + 1
    return number >= eta and ahead >= math.ceil(number / eta)


def _is_ahead(scores: Sequence[float], own: Sequence[float]) -> bool:
    pairs = list(zip(scores, own, strict=True))
    return all(theirs >= ours for theirs, ours in pairs) and any(theirs > ours for theirs, ours in pairs)


def full_accuracy(
    rungs: Mapping[float, float], finished: Sequence[tuple[Mapping[float, float], float]]
) -> float | None:
    """Estimate what a stopped candidate would have come to, from those that came to the end.

    The end is a straight line of the accuracy at the last rung; while few have finished, a multiple of it.

    Args:
        rungs: Accuracy of the candidate after so many epochs.
        finished: The same of each that came to the end, and its accuracy there.

    Returns:
        From 0 to 1, never less than at the last rung; None: nothing is known of the candidate, or of such.
    """
    if not rungs:
        return None
    epochs = max(rungs)
    pairs = [(known[epochs], end) for known, end in finished if epochs in known]
    if not pairs:
        return None
    here = rungs[epochs]
    return min(max(_extended(here, pairs), here), 1.0)


def _extended(here: float, pairs: Sequence[tuple[float, float]]) -> float:
    starts, ends = [start for start, _ in pairs], [end for _, end in pairs]
    start_mean, end_mean = fmean(starts), fmean(ends)
    variance = sum((start - start_mean) ** 2 for start in starts)
    if len(pairs) < _FEWEST_PAIRS or variance < _EXACT:
        return here * end_mean / start_mean if start_mean else here
    slope = sum((start - start_mean) * (end - end_mean) for start, end in pairs) / variance
    # What is better early is not worse later: noise may say so, while few have finished.
    return end_mean + max(slope, 0.0) * (here - start_mean)
