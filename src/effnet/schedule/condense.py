"""A run of many sizes in few: enough to measure, or to look at."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from itertools import accumulate

from effnet.schedule.progressive import StageSchedule, StageSettings

MOST_STAGES = 8


def pixels(settings: StageSettings) -> int:
    """Return the pixels of a batch, to which its cost is about proportional."""
    return settings.image_size**2 * settings.batch_size


def condensed(schedule: StageSchedule) -> StageSchedule:
    """Return a schedule of no more than eight stages that has the same number of steps.

    Args:
        schedule: One of few stages is returned as it is.

    Returns:
        Stages of different sizes, ascending: the smallest, the largest, and some evenly spread between. Each
        has the settings of one stage of its size, and the steps of all sizes behind the next smaller one.
    """
    if len(schedule.stages) <= MOST_STAGES:
        return schedule
    distinct: dict[tuple[int, int], StageSettings] = {}
    for settings in schedule.stages:
        if settings.steps:
            distinct.setdefault((settings.image_size, settings.batch_size), settings)
    ordered = sorted(distinct.values(), key=pixels)
    count = min(len(ordered), MOST_STAGES)
    chosen = [
        ordered[-1 - number * (len(ordered) - 1) // max(count - 1, 1)] for number in reversed(range(count))
    ]
    steps = [0] * count
    for settings in (stage for stage in schedule.stages if stage.steps):
        steps[bisect_left(chosen, pixels(settings), key=pixels)] += settings.steps
    ends = list(accumulate(steps))
    stages = tuple(
        replace(settings, stage=stage, start_step=end - steps[stage], end_step=end)
        for stage, (settings, end) in enumerate(zip(chosen, ends, strict=True))
    )
    return StageSchedule(stages, schedule.train_images, schedule.reference_batch_size)
