"""Which candidates are on the Pareto front, and how large the region is that a front covers."""

from __future__ import annotations

from collections.abc import Sequence


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether ``first`` is nowhere below ``second`` and somewhere above it."""
    pairs = list(zip(first, second, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def front(scores: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of what nothing dominates, in order; equal scores are on it together.

    Args:
        scores: More is better, each of the same length.
    """
    return [index for index, own in enumerate(scores) if not any(dominates(other, own) for other in scores)]


def hypervolume(scores: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Return the volume between a point and all that some score dominates.

    Args:
        scores: More is better. Those that are not above ``reference`` in every score add nothing.
        reference: The corner that counts as worst.
    """
    above = [tuple(own) for own in scores if all(a > b for a, b in zip(own, reference, strict=True))]
    if not above:
        return 0.0
    first, *rest = reference
    if not rest:
        return max(own[0] for own in above) - first
    # Slices of the first score, from the best down; each has the cross-section of all that reach it.
    levels = sorted({own[0] for own in above}, reverse=True)
    volume = 0.0
    for level, below in zip(levels, [*levels[1:], first], strict=True):
        section = [own[1:] for own in above if own[0] >= level]
        volume += (level - below) * hypervolume(section, rest)
    return volume
