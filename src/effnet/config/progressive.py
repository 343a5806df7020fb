"""Algorithm 1: what grows with the image size."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG, Rate
from effnet.config.ranges import NonNegative, Positive, PositiveInt

Coupled = Literal[
    "randaugment_magnitude",
    "mixup_alpha",
    "cutmix_alpha",
    "erasing_probability",
    "dropout_rate",
    "drop_path_rate",
]
COUPLED: tuple[Coupled, ...] = get_args(Coupled)
"""All that Algorithm 1 can let grow with the image size: a pair of `ProgressiveConfig` and a value of
`effnet.schedule.progressive.StageSettings`, each."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class ProgressiveConfig:
    """Algorithm 1 of 2104.00298: each pair is the value of the first and of the last stage."""

    mode: Literal["staged", "linear", "random"] = "staged"
    """``staged``: as many stages of equal length as ``stages`` says; one stage is the constant mode.
    ``linear``: a stage for each size between the first and the last. ``random``: every ``redraw_epochs`` a
    size between the first and the last is drawn, whatever the progress of the run (2104.00298 table 13, after
    1908.08986)."""
    stages: PositiveInt = 4
    """Of mode ``staged``."""
    redraw_epochs: Positive = 8.0
    """Of mode ``random``."""
    cooldown_epochs: NonNegative = 0.0
    """Epochs at the end of the run with the last size and the last values, behind all that ``mode`` does."""
    coupled: tuple[Coupled, ...] = COUPLED
    """What changes with the image size; what is left out has its last value throughout. ``[]`` is progressive
    resizing without adaptive regularization."""
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    """Pixels; left out: from 128 (or less, if the network is smaller) to the network's training size."""
    size_rule: Literal["paper", "release"] = "paper"
    """Of mode ``staged``. ``paper``: the first stage has the first size. ``release``: stage i of M has
    (i + 1) / M of the way, so that the first size is never used."""
    size_multiple: PositiveInt = 1
    """Round image sizes down to a multiple of this, the last one excepted. In the modes ``linear`` and
    ``random`` the sizes are all such multiples, and the last one."""
    randaugment_magnitude: tuple[NonNegative, NonNegative] = (5.0, 10.0)
    mixup_alpha: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    cutmix_alpha: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    erasing_probability: tuple[Rate, Rate] = (0.0, 0.0)
    """Share of the images of which a rectangle is covered with noise (1708.04896)."""
    dropout_rate: tuple[Rate, Rate] = (0.2, 0.2)
    drop_path_rate: tuple[Rate, Rate] = (0.2, 0.2)
    batch_rule: Literal["constant", "pixels"] = "constant"
    """``pixels``: smaller images come in larger batches, so that a batch keeps its number of pixels; the
    learning rate grows with them as ``batch_scaling`` says."""

    def __post_init__(self) -> None:
        if self.image_size and self.image_size[0] > self.image_size[1]:
            raise ValueError(
                f"image_size must be [first, last] with first <= last, got {list(self.image_size)}"
            )
