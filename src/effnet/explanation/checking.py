"""Do maps know anything? The insertion and deletion game against maps that do not.

Dimension key: N images, C channels, S side in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from effnet.arch.spec import Output
from effnet.explanation.game import STEPS, GameAreas, play, random_maps
from effnet.nn import Network

RANDOM_MAPS = 3
"""With which each map is compared; their mean counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Areas of one map of one image."""

    deletion: float
    """Smaller is better."""
    insertion: float
    """Larger is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """One image's map, and those that it is compared with."""

    own: Score
    random: Score
    """Mean of `RANDOM_MAPS` random maps that are as smooth."""
    other: Score | None
    """Of the map of another image, which also looks at the middle if all do; None: there was none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the game says of a method, over all images."""

    images: int
    own: Score
    random: Score
    other: Score | None
    deletion_gain: float
    """By how much the area is below that of random maps, mean over the images."""
    deletion_error: float
    """Standard error of that mean."""
    insertion_gain: float
    """By how much the area is above that of random maps, mean over the images."""
    insertion_error: float
    """Standard error of that mean."""

    @property
    def is_passed(self) -> bool:
        """Whether both gains are above two of their standard errors."""
        return self.deletion_gain > 2 * self.deletion_error and self.insertion_gain > 2 * self.insertion_error

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as ``effnet explain --check`` writes them."""
        scores = {"map": self.own, "random": self.random} | (
            {"other_image": self.other} if self.other else {}
        )
        return {
            "images": self.images,
            "deletion": {name: score.deletion for name, score in scores.items()}
            | {"gain": self.deletion_gain, "gain_error": self.deletion_error},
            "insertion": {name: score.insertion for name, score in scores.items()}
            | {"gain": self.insertion_gain, "gain_error": self.insertion_error},
            "passed": self.is_passed,
        }


def play_random(
    model: Network,
    pixels: Float[Tensor, "N C S S"],
    classes: Int64[Tensor, " N"],
    cells: int,
    *,
    output: Output = "softmax",
    steps: int = STEPS,
    seed: int = 0,
) -> GameAreas:
    """Play with `RANDOM_MAPS` random maps for each image; return the means.

    Args:
        model: The network; it stays as it was.
        pixels: Normalised.
        classes: Whose probability is followed, of each image.
        cells: Along a side of the maps: as many as those that they are compared with can tell apart.
        output: How logits become probabilities.
        steps: Of `effnet.explanation.game.play`.
        seed: Of the maps.
    """
    side = pixels.shape[-1]
    drawn = [
        random_maps(len(pixels), cells, side, seed=seed * RANDOM_MAPS + number).to(pixels.device)
        for number in range(RANDOM_MAPS)
    ]
    played = [play(model, pixels, classes, maps, output=output, steps=steps) for maps in drawn]
    return GameAreas(
        deletion=torch.stack([areas.deletion for areas in played]).mean(0),
        insertion=torch.stack([areas.insertion for areas in played]).mean(0),
    )


def play_matches(
    model: Network,
    pixels: Float[Tensor, "N C S S"],
    classes: Int64[Tensor, " N"],
    heat: Float[Tensor, "N S S"],
    random: GameAreas,
    *,
    output: Output = "softmax",
    steps: int = STEPS,
) -> list[Match]:
    """Play with the maps of some images, and with those of the images beside.

    Args:
        model: The network; it stays as it was.
        pixels: Normalised.
        classes: Whose probability is followed, of each image.
        heat: Of each image.
        random: Of `play_random`, for the same images.
        output: How logits become probabilities.
        steps: Of `effnet.explanation.game.play`.
    """
    own = play(model, pixels, classes, heat, output=output, steps=steps)
    other = None
    if len(heat) > 1:
        other = play(model, pixels, classes, heat.roll(1, 0), output=output, steps=steps)
    return [
        Match(own=_score(own, row), random=_score(random, row), other=_score(other, row) if other else None)
        for row in range(len(heat))
    ]


def verdict_of(matches: Sequence[Match]) -> Verdict:
    """Sum up the game of one method; of at least one image."""
    own = _mean([match.own for match in matches])
    random = _mean([match.random for match in matches])
    others = [match.other for match in matches if match.other]
    deletion = [match.random.deletion - match.own.deletion for match in matches]
    insertion = [match.own.insertion - match.random.insertion for match in matches]
    return Verdict(
        images=len(matches),
        own=own,
        random=random,
        other=_mean(others) if others else None,
        deletion_gain=fmean(deletion),
        deletion_error=_standard_error(deletion),
        insertion_gain=fmean(insertion),
        insertion_error=_standard_error(insertion),
    )


def _score(areas: GameAreas, row: int) -> Score:
    return Score(deletion=float(areas.deletion[row]), insertion=float(areas.insertion[row]))


def _mean(scores: Sequence[Score]) -> Score:
    return Score(
        deletion=fmean(score.deletion for score in scores),
        insertion=fmean(score.insertion for score in scores),
    )


def _standard_error(values: Sequence[float]) -> float:
    """Return that of a mean; of a single value nothing is known."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
