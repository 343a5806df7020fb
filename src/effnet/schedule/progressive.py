"""Algorithm 1 of 2104.00298 as a pure function from the step to what that step trains with.

Step and sample are the only clocks. Reference steps are steps of ``batch_size`` images: the learning
rate and the stages' lengths are counted in them, so a stage with larger batches has fewer, larger steps
and sees the same images.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass
from itertools import accumulate

from effnet.config import ProgressiveConfig, TrainConfig

FIRST_SIZE_PX = 128


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
    dropout_rate: float
    drop_path_rate: float

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


def _between(pair: tuple[float, float], fraction: float) -> float:
    start, end = pair
    return start + (end - start) * fraction


def _position(stage: int, stages: int) -> float:
    """Where a stage lies between the first (0) and the last (1); a single stage is the last."""
    return stage / (stages - 1) if stages > 1 else 1.0


def image_sizes(config: ProgressiveConfig, train_size: int) -> tuple[int, ...]:
    """Return each stage's image size in pixels.

    Args:
        config: ``size_rule`` ``paper`` is Algorithm 1, ``S_0 + (S_e - S_0) * i / (M - 1)``;
            ``release`` is the ``automl`` code, ``int(S_0 + (S_e - S_0) * (i + 1) / M)``. Both truncate.
        train_size: The network's training size, used where the configuration gives no sizes.
    """
    first, last = config.image_size or (min(FIRST_SIZE_PX, train_size), train_size)
    count = config.stages
    sizes = []
    for stage in range(count):
        if config.size_rule == "release":
            size = first + (last - first) * (stage + 1) // count
        else:
            size = first + (last - first) * stage // (count - 1) if count > 1 else last
        if size != last:
            size = min(max(size // config.size_multiple, 1) * config.size_multiple, last)
        sizes.append(size)
    return tuple(sizes)


def _batch_size(config: ProgressiveConfig, batch_size: int, image_size: int, last_size: int) -> int:
    if config.batch_rule == "constant":
        return batch_size
    grown = int(batch_size * (last_size / image_size) ** 2)
    return max(grown // 8 * 8, batch_size)


def total_reference_steps(train: TrainConfig, train_images: int) -> int:
    """Return ``int(epochs * images / batch)``, at least ``min_steps`` and 1 (as released)."""
    return max(int(train.epochs * train_images / train.batch_size), train.min_steps, 1)


def stage_schedule(
    config: ProgressiveConfig, train: TrainConfig, *, train_images: int, train_size: int
) -> StageSchedule:
    """Lay out the stages of a run.

    Args:
        config: The first and last value of everything that grows.
        train: Length and batch size of the run.
        train_images: Images in one epoch.
        train_size: The network's training size in pixels, see `image_sizes`.

    Returns:
        The stages: stage ``i`` of ``M`` ends at ``int((i + 1) / M * total)`` reference steps.
    """
    sizes = image_sizes(config, train_size)
    count = len(sizes)
    total = total_reference_steps(train, train_images)
    batch_sizes = [_batch_size(config, train.batch_size, size, sizes[-1]) for size in sizes]
    reference_ends = [total * (stage + 1) // count for stage in range(count)]
    reference_steps = [end - start for start, end in zip([0, *reference_ends], reference_ends, strict=False)]
    steps = [
        reference * train.batch_size // batch_size if batch_size != train.batch_size else reference
        for reference, batch_size in zip(reference_steps, batch_sizes, strict=True)
    ]
    ends = list(accumulate(steps))
    stages = []
    for stage, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        fraction = _position(stage, count)
        stages.append(
            StageSettings(
                stage=stage,
                start_step=start,
                end_step=end,
                image_size=sizes[stage],
                batch_size=batch_sizes[stage],
                randaugment_magnitude=_between(config.randaugment_magnitude, fraction),
                mixup_alpha=_between(config.mixup_alpha, fraction),
                cutmix_alpha=_between(config.cutmix_alpha, fraction),
                dropout_rate=_between(config.dropout_rate, fraction),
                drop_path_rate=_between(config.drop_path_rate, fraction),
            )
        )
    return StageSchedule(tuple(stages), train_images, train.batch_size)
