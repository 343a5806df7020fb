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
    hold_share: Rate = 0.0
    """Share of the run at its start with the first size and the first values, before all that ``mode`` does.
    Composer's default is mode ``linear`` from half the size, 0.5 of this and 0.2 of ``cooldown_share``."""
    cooldown_epochs: NonNegative = 0.0
    """Epochs at the end of the run with the last size and the last values, behind all that ``mode`` does."""
    cooldown_share: Rate = 0.0
    """The same as a share of the run."""
    coupled: tuple[Coupled, ...] = COUPLED
    """What changes with the image size; what is left out has its last value throughout. ``[]`` is progressive
    resizing without adaptive regularization."""
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    """Pixels; left out: from 128 (or less, if the network is smaller) to the network's training size."""
    size_rule: Literal["paper", "release"] = "paper"
    """Of mode ``staged``. ``paper``: the first stage has the first size. ``release``: stage i of M has
    (i + 1) / M of the way, so that the first size is never used."""
    size_power: Positive = 1.0
    """Not of mode ``random``. Of its way from the first to the last, the size has gone the run's progress to
    this power: above 1 images stay small for longer, below 1 they grow sooner."""
    regularization_power: Positive = 1.0
    """What is ``coupled`` has gone the size's share of the way to this power: above 1 it stays weak until
    images are large, below 1 it is strong while they are small."""
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
    learning rate grows with them as ``batch_scaling`` says. Stages, warm-up and moving averages are counted
    in images, so that they stay what they are; so does decoupled weight decay."""
    batch_limit: NonNegative = 0.0
    """Of ``pixels``: how many times as large as ``train.batch_size`` a batch may be, at least 1; 0: any."""

    def __post_init__(self) -> None:
        if self.image_size and self.image_size[0] > self.image_size[1]:
            raise ValueError(
                f"image_size must be [first, last] with first <= last, got {list(self.image_size)}"
            )
        if 0 < self.batch_limit < 1:
            raise ValueError(f"batch_limit must be 0 or at least 1, got {self.batch_limit:g}")
        if self.cooldown_epochs and self.cooldown_share:
            raise ValueError(
                f"a cooldown is cooldown_epochs or cooldown_share, got {self.cooldown_epochs:g} and "
                f"{self.cooldown_share:g}; set one of them to 0"
            )
        if self.hold_share + self.cooldown_share > 1:
            raise ValueError(
                f"hold_share and cooldown_share must be at most 1 together, got {self.hold_share:g} and "
                f"{self.cooldown_share:g}"
            )
