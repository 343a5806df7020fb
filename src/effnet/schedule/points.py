"""What single steps of a run train with: what a plan shows, and what can be computed by hand."""

from __future__ import annotations

from effnet.config import LearningRateConfig, ProgressiveConfig
from effnet.schedule.learning_rate import learning_rate
from effnet.schedule.progressive import StageSchedule

_MOST_STAGES = 12


def rate_of_step(config: LearningRateConfig, schedule: StageSchedule, step: int) -> float:
    """Return the learning rate of the update at ``step``; parts of the network may have a share of it."""
    return learning_rate(
        config,
        schedule.reference_step(step),
        steps_per_epoch=schedule.train_images / schedule.reference_batch_size,
        total_steps=schedule.total_reference_steps,
        batch_size=schedule.at(step).batch_size,
    )


def key_steps(config: LearningRateConfig, schedule: StageSchedule) -> list[int]:
    """Return the steps at which a run is worth looking at.

    They are its first and last one, those on either side of the warm-up's end, the middle, and where stages
    begin, unless these are many.
    """
    total = schedule.total_steps
    warm = schedule.step_at_epoch(config.warmup_epochs)
    steps = {0, warm - 1, warm, total // 2, total - 1}
    starts = {stage.start_step for stage in schedule.stages if stage.steps}
    if len(starts) <= _MOST_STAGES:
        steps |= starts
    return sorted(step for step in steps if 0 <= step < total)


def milestones(config: ProgressiveConfig, schedule: StageSchedule) -> frozenset[int]:
    """Return how many steps are done where a run is worth evaluating and keeping.

    That is at the end of each stage; in the modes that have a stage for each of many sizes, at the run's end.
    """
    stages = schedule.stages if config.mode == "staged" else schedule.stages[-1:]
    return frozenset(stage.end_step for stage in stages)


def values_at(config: LearningRateConfig, schedule: StageSchedule, step: int) -> dict[str, float]:
    """Return all that ``step`` trains with, under the names of a plan."""
    settings = schedule.at(step)
    return {
        "step": step,
        "epoch": schedule.epoch(step),
        "learning_rate": rate_of_step(config, schedule, step),
        "stage": settings.stage,
        "image_size": settings.image_size,
        "batch_size": settings.batch_size,
        **{str(name): value for name, value in settings.coupled.items()},
    }
