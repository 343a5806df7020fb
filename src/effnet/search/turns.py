"""How much longer one thing takes than another, on a machine that stalls and drifts.

A time alone says little: the same network, measured twice, differs by 13 % on a shared machine. So both take
turns, and each turn of the one is compared with the turns of the other right before and right after it. Drift
meets both alike, a stall is met by the median, and turns in which the machine changed do not count.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Annotated, TypeAlias

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG

Turn: TypeAlias = Callable[[int], Sequence[float]]
"""Do something so many times and return the seconds of each."""

_WARM_SHARE = 0.15
"""Of the budget, for each of the two, at most; its first time, which may compile, is not counted."""
_WINDOW, _AGREEMENT = 5, 0.02
"""Warm is what takes as long in two windows of so many times."""
_ROUNDS = 12
"""That the length of a turn is chosen for."""
_MOST_A_TURN = 20
_ENOUGH, _WANTED, _FEWEST = 10, 6, 3
"""Rounds before the spread is believed, before the budget counts, and before twice the budget counts."""
_CHANGE = 0.1
"""Between the reference's turns before and after one: more, and the machine changed."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Budget:
    """How long a comparison may go on."""

    seconds: Annotated[float, Field(gt=0.0)] = 4.0
    """Of both together, warm-up included. Six rounds may take twice as long; three are made in any case."""
    precision: Annotated[float, Field(ge=0.0)] = 0.01
    """Stop before that where the relative standard error of the ratio is no larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How much longer one thing takes than a reference."""

    ratio: float
    """Median over the rounds that count."""
    spread: float
    """Relative standard error of the ratio, from the median deviation of those rounds."""
    rounds: int
    """That count."""
    dropped: int
    """Rounds in which the reference before and after differed by more than a tenth."""
    seconds: float
    """Median; it has the machine's drift in it, the ratio has not."""
    reference_seconds: float
    """Median."""


def compare(
    candidate: Turn, reference: Turn, budget: Budget, now: Callable[[], float] = time.monotonic
) -> Comparison:
    """Time two things in turns until their ratio is known or the budget is spent.

    Args:
        candidate: What is to be measured.
        reference: What it is measured by.
        budget: See `Budget`.
        now: The clock that the budget is counted by, in seconds.
    """
    warm = _WARM_SHARE * budget.seconds
    first = now()
    ready, cold = _warm_up(reference, warm, now)
    counts = {reference: _count(ready, budget)}
    ready, more_cold = _warm_up(candidate, warm, now)
    counts[candidate] = _count(ready, budget)

    def turn(work: Turn) -> float:
        return median(work(counts[work]))

    own: list[float] = []
    references = [turn(reference)]
    while True:
        own.append(turn(candidate))
        references.append(turn(reference))
        if len(own) >= _FEWEST:
            comparison = conclude(own, references)
            is_known = comparison.rounds >= _ENOUGH and comparison.spread <= budget.precision
            spent = now() - first - cold - more_cold
            allowed = budget.seconds * (1 if comparison.rounds >= _WANTED else 2)
            if is_known or spent >= allowed:
                return comparison


def conclude(own: Sequence[float], references: Sequence[float]) -> Comparison:
    """Compare each turn with those of the reference around it.

    Args:
        own: Seconds of each turn.
        references: Those of the reference, one more: before, between and behind.
    """
    around = list(pairwise(references))
    changes = [abs(before - after) / fmean((before, after)) for before, after in around]
    # Where the machine never is steady, the steadier half has to do.
    limit = max(_CHANGE, sorted(changes)[math.ceil(len(own) / 2) - 1])
    ratios = [
        seconds / fmean(pair)
        for seconds, pair, change in zip(own, around, changes, strict=True)
        if change <= limit
    ]
    ratio = median(ratios)
    deviation = 1.4826 * median(abs(value - ratio) for value in ratios)  # Of a normal distribution.
    return Comparison(
        ratio=ratio,
        # The median of normal values errs by a quarter more than their mean.
        spread=1.2533 * deviation / math.sqrt(len(ratios)) / ratio,
        rounds=len(ratios),
        dropped=len(own) - len(ratios),
        seconds=median(own),
        reference_seconds=median(references),
    )


def _warm_up(work: Turn, seconds: float, now: Callable[[], float]) -> tuple[float, float]:
    """Do it until it takes as long as before; return how long it takes, and how long its first time took."""
    started = now()
    work(1)
    cold = now() - started
    started = now()
    window = min(max(int(seconds / 4 / max(work(1)[0], 1e-9)), 1), _WINDOW)
    before = median(work(window))
    while True:
        after = median(work(window))
        if abs(after - before) <= _AGREEMENT * before or now() - started >= seconds:
            return after, cold
        before = after


def _count(seconds: float, budget: Budget) -> int:
    share = (1 - 2 * _WARM_SHARE) * budget.seconds / (2 * _ROUNDS)
    return min(max(round(share / max(seconds, 1e-9)), 1), _MOST_A_TURN)
