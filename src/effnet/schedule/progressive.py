"""Algorithm 1 of 2104.00298 as a pure function from the step to what that step trains with.

Step and sample are the only clocks. Reference steps are steps of ``batch_size`` images: the learning
rate and the stages' lengths are counted in them, so a stage with larger batches has fewer, larger steps
and sees the same images.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, count
from typing import NamedTuple

from effnet.config import COUPLED, Coupled, ProgressiveConfig, TrainConfig

FIRST_SIZE_PX = 128
_ROUNDING = 1e-9
"""Added to what is truncated: what ought to be whole stays whole."""

LABELS: dict[Coupled, str] = {
    "randaugment_magnitude": "RandAugment",
    "mixup_alpha": "mixup",
    "cutmix_alpha": "CutMix",
    "erasing_probability": "erasing",
    "dropout_rate": "dropout",
    "drop_path_rate": "drop-path",
}
"""What tables and pictures call the values that may grow with the image size, in their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageSettings:
    """What every step of one stage trains with."""

    stage: int
    """From 0."""
    start_step: int
    """First step of the stage, from 0."""
    end_step: int
    """First step behind the stage."""
    image_size: int
    """Side in pixels."""
    batch_size: int
    """Images a step."""
    randaugment_magnitude: float
    mixup_alpha: float
    cutmix_alpha: float
    erasing_probability: float = 0.0
    dropout_rate: float
    drop_path_rate: float

    @property
    def coupled(self) -> dict[Coupled, float]:
        """The values that may grow with the image size, in the order of `LABELS`."""
        return {name: getattr(self, name) for name in LABELS}

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.end_step - self.start_step

    def to_dict(self) -> dict[str, int | float]:
        """Return the settings under their names."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StageSchedule:
    """All stages of a run, in order and without gaps."""

    stages: tuple[StageSettings, ...]
    train_images: int
    """Images in one epoch."""
    reference_batch_size: int

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.stages[-1].end_step

    @property
    def largest_size(self) -> int:
        """The largest image size of any stage that has steps, in pixels."""
        return max(stage.image_size for stage in self.stages if stage.steps)

    @property
    def total_reference_steps(self) -> float:
        """The run's length in steps of the reference batch."""
        return self.reference_step(self.total_steps)

    def at(self, step: int) -> StageSettings:
        """Return the settings of ``step``; those of the last stage behind the end."""
        index = bisect_right([stage.end_step for stage in self.stages], step)
        return self.stages[min(index, len(self.stages) - 1)]

    def samples_before(self, step: int) -> int:
        """Return how many images all steps before ``step`` have used."""
        done = (min(max(step - s.start_step, 0), s.steps) * s.batch_size for s in self.stages)
        return sum(done)

    def epoch(self, step: int) -> float:
        """Return how many epochs have been trained before ``step``."""
        return self.samples_before(step) / self.train_images

    def reference_step(self, step: int) -> float:
        """Return the images used before ``step`` in units of the reference batch."""
        return self.samples_before(step) / self.reference_batch_size

    def step_at_epoch(self, epoch: float) -> int:
        """Return the first step before which at least ``epoch`` epochs have been trained."""
        low, high = 0, self.total_steps
        while low < high:
            middle = (low + high) // 2
            if self.samples_before(middle) >= round(epoch * self.train_images, 6):
                high = middle
            else:
                low = middle + 1
        return low


class _Part(NamedTuple):
    """A stage before its steps are counted."""

    end: int
    """In reference steps."""
    image_size: int
    fraction: float
    """Of the way from the first to the last value of all that is coupled."""


def image_sizes(config: ProgressiveConfig, train_size: int) -> tuple[int, ...]:
    """Return the image sizes of a run in pixels.

    Args:
        config: In mode ``staged``, ``size_rule`` ``paper`` is Algorithm 1,
            ``S_0 + (S_e - S_0) * i / (M - 1)``; ``release`` is the ``automl`` code,
            ``int(S_0 + (S_e - S_0) * (i + 1) / M)``. Both truncate. ``size_power`` is an exponent of the
            fraction in either.
        train_size: The network's training size, used where the configuration gives no sizes.

    Returns:
        The sizes of the stages in order, without that of a cooldown; in mode ``random`` those that are drawn
        from, ascending.
    """
    first, last = config.image_size or (min(FIRST_SIZE_PX, train_size), train_size)
    if config.mode != "staged":
        multiple = config.size_multiple
        return (*range(max(first // multiple, 1) * multiple, last, multiple), last)
    stages = config.stages
    sizes = []
    for stage in range(stages):
        if config.size_rule == "release":
            size = first + _way(last - first, stage + 1, stages, config.size_power)
        else:
            size = first + _way(last - first, stage, stages - 1, config.size_power) if stages > 1 else last
        if size != last:
            size = min(max(size // config.size_multiple, 1) * config.size_multiple, last)
        sizes.append(size)
    return tuple(sizes)


def first_size(config: ProgressiveConfig, train_size: int) -> int:
    """Return the image size of a hold in pixels: where `image_sizes` begin, or would with more stages."""
    return image_sizes(replace(config, size_rule="paper", stages=max(config.stages, 2)), train_size)[0]


def drawn_index(seed: int, draw: int, options: int) -> int:
    """Return which of so many options one draw takes: uniform, and a function of its arguments alone.

    Args:
        seed: Of the run.
        draw: The draw's number, from 0.
        options: At least 1.
    """
    digest = hashlib.sha256(f"image size {seed}/{draw}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * options >> 64


def total_reference_steps(train: TrainConfig, train_images: int) -> int:
    """Return ``int(epochs * images / batch)``, at least ``min_steps`` and 1 (as released)."""
    return max(int(train.epochs * train_images / train.batch_size), train.min_steps, 1)


def stage_schedule(
    config: ProgressiveConfig, train: TrainConfig, *, train_images: int, train_size: int
) -> StageSchedule:
    """Lay out the stages of a run.

    Args:
        config: The mode, and the first and last value of everything that grows.
        train: Length, batch size and seed of the run.
        train_images: Images in one epoch.
        train_size: The network's training size in pixels, see `image_sizes`.

    Returns:
        The stages. In the modes ``staged`` and ``linear``, stage ``i`` of ``M`` ends at
        ``int((i + 1) / M * total)`` reference steps, in ``linear`` with the inverse of ``size_power`` as an
        exponent; in mode ``random`` every draw is a stage. A cooldown is one stage more, and so is a hold
        unless the first stage has the same size and values. A stage may have no steps where a run is short.
    """
    sizes = image_sizes(config, train_size)
    parts = _parts(config, train, train_images, sizes, held=first_size(config, train_size))
    batch_sizes = [_batch_size(config, train.batch_size, part.image_size, sizes[-1]) for part in parts]
    reference_steps = [
        end - start for start, end in zip([0, *(p.end for p in parts)], (p.end for p in parts), strict=False)
    ]
    steps = [
        reference * train.batch_size // batch_size if batch_size != train.batch_size else reference
        for reference, batch_size in zip(reference_steps, batch_sizes, strict=True)
    ]
    if not any(steps):  # A run of a step or so, with larger batches than the last stage has.
        steps[-1] = 1
    ends = list(accumulate(steps))
    stages = tuple(
        StageSettings(
            stage=stage,
            start_step=start,
            end_step=end,
            image_size=part.image_size,
            batch_size=batch_sizes[stage],
            **_coupled_values(config, part.fraction),
        )
        for stage, (part, start, end) in enumerate(zip(parts, [0, *ends], ends, strict=False))
    )
    return StageSchedule(stages, train_images, train.batch_size)


def _parts(
    config: ProgressiveConfig, train: TrainConfig, train_images: int, sizes: Sequence[int], *, held: int
) -> list[_Part]:
    total = total_reference_steps(train, train_images)
    steps_per_epoch = train_images / train.batch_size
    cooldown = int(config.cooldown_epochs * steps_per_epoch) or _part_of(total, config.cooldown_share)
    cooldown = min(cooldown, total)
    hold = min(_part_of(total, config.hold_share), total - cooldown)
    if config.mode == "random":
        parts = _drawn_parts(
            sizes,
            train.seed,
            steps=total - hold - cooldown,
            steps_a_draw=config.redraw_epochs * steps_per_epoch,
        )
    else:
        parts = _growing_parts(config, sizes, total - hold - cooldown)
    parts = [
        _Part(hold + part.end, part.image_size, part.fraction**config.regularization_power) for part in parts
    ]
    if hold and parts[0][1:] != (held, 0.0):
        parts = [_Part(hold, held, 0.0), *parts]
    return [*parts, _Part(total, sizes[-1], 1.0)] if cooldown else parts


def _growing_parts(config: ProgressiveConfig, sizes: Sequence[int], steps: int) -> list[_Part]:
    """Return a part for each size: of equal length, but for what ``size_power`` makes of mode ``linear``."""
    many, power = len(sizes), config.size_power
    if config.mode == "linear":
        return [
            _Part(_way(steps, stage + 1, many, 1 / power), size, _position(stage, many))
            for stage, size in enumerate(sizes)
        ]
    return [
        _Part(steps * (stage + 1) // many, size, _position(stage, many) ** power)
        for stage, size in enumerate(sizes)
    ]


def _way(whole: int, numerator: int, denominator: int, power: float) -> int:
    """Return ``int(whole * (numerator / denominator) ** power)``, exact where the power is 1."""
    if power == 1.0:
        return whole * numerator // denominator
    return _part_of(whole, (numerator / denominator) ** power)


def _part_of(whole: int, share: float) -> int:
    return int(whole * share + _ROUNDING)


def _drawn_parts(sizes: Sequence[int], seed: int, *, steps: int, steps_a_draw: float) -> list[_Part]:
    parts: list[_Part] = []
    for draw in count():
        end = min(int((draw + 1) * max(steps_a_draw, 1.0)), steps)
        index = drawn_index(seed, draw, len(sizes))
        fraction = (sizes[index] - sizes[0]) / (sizes[-1] - sizes[0]) if len(sizes) > 1 else 1.0
        parts.append(_Part(end, sizes[index], fraction))
        if end == steps:
            break
    return parts


def _position(stage: int, stages: int) -> float:
    """Where a stage lies between the first (0) and the last (1); a single stage is the last."""
    return stage / (stages - 1) if stages > 1 else 1.0


def _batch_size(config: ProgressiveConfig, batch_size: int, image_size: int, last_size: int) -> int:
    if config.batch_rule == "constant":
        return batch_size
    grown = int(batch_size * min((last_size / image_size) ** 2, config.batch_limit or math.inf))
    return max(grown // 8 * 8, batch_size)


def _coupled_values(config: ProgressiveConfig, fraction: float) -> dict[Coupled, float]:
    """Return all values a fraction of the way along, and the last one of what is not coupled."""
    pairs: dict[Coupled, tuple[float, float]] = {name: getattr(config, name) for name in COUPLED}
    return {
        name: first + (last - first) * fraction if name in config.coupled else last
        for name, (first, last) in pairs.items()
    }
