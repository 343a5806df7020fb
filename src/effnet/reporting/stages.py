"""Where the time of a run went, stage by stage, by its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.schedule.progressive import StageSchedule, StageSettings

MOST_ROWS = 16
"""Where there are more stages, as many that follow each other share a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTime:
    """What one stage, or some that follow each other, came to so far."""

    first: int
    """From 1."""
    last: int
    sizes: tuple[int, int]
    """Smallest and largest image size in pixels."""
    epochs: tuple[float, float]
    """Start and planned end."""
    steps: int
    """Done so far."""
    planned_steps: int
    images: int
    """Trained on so far, counted each time."""
    step_seconds: float
    """In training steps, waiting included."""
    wait_seconds: float
    """Of them, spent waiting for images."""
    evaluation_seconds: float
    loss: float | None
    """Of training, in the last record."""
    val_top1: float | None
    """Of the last evaluation, as a fraction."""

    @property
    def images_per_second(self) -> float | None:
        """Of training steps; None where no time was spent."""
        return self.images / self.step_seconds if self.step_seconds else None

    @property
    def data_wait(self) -> float | None:
        """Share of the steps' time that was spent waiting for images."""
        return self.wait_seconds / self.step_seconds if self.step_seconds else None


@dataclass(frozen=True, slots=True)
class _Spent:
    """One record and the time since the one before it."""

    record: Mapping[str, Any]
    seconds: float


def stage_times(metrics: Sequence[Mapping[str, Any]], schedule: StageSchedule) -> tuple[StageTime, ...]:
    """Sum up the journal of a run by stages.

    ``seconds`` of the records runs on through training and evaluation, over all sessions; so what lies
    between two records belongs to what the later one is about.

    Args:
        metrics: Records of the journal in order.
        schedule: Of the run.

    Returns:
        One row a stage that has steps, or `MOST_ROWS` at most.
    """
    spent = list(_spent(metrics))
    stages = [stage for stage in schedule.stages if stage.steps]
    together = -(-len(stages) // MOST_ROWS)
    rows = (stages[start : start + together] for start in range(0, len(stages), together))
    return tuple(_stage_time(row, spent, schedule) for row in rows)


def _spent(metrics: Sequence[Mapping[str, Any]]) -> list[_Spent]:
    spent, before = [], 0.0
    for record in metrics:
        if "seconds" in record and "stage" in record:
            spent.append(_Spent(record, max(record["seconds"] - before, 0.0)))
            before = record["seconds"]
    return spent


def _stage_time(
    stages: Sequence[StageSettings], spent: Sequence[_Spent], schedule: StageSchedule
) -> StageTime:
    numbers = {stage.stage for stage in stages}
    own = [one for one in spent if one.record["stage"] in numbers]
    training = [one for one in own if "images_per_second" in one.record]
    evaluations = [one for one in own if "val_top1" in one.record]
    start, end = stages[0].start_step, stages[-1].end_step
    done = min(max(start, *(int(one.record["step"]) for one in spent)), end) if spent else start
    return StageTime(
        first=stages[0].stage + 1,
        last=stages[-1].stage + 1,
        sizes=(min(stage.image_size for stage in stages), max(stage.image_size for stage in stages)),
        epochs=(schedule.epoch(start), schedule.epoch(end)),
        steps=done - start,
        planned_steps=end - start,
        images=schedule.samples_before(done) - schedule.samples_before(start),
        step_seconds=sum(one.seconds for one in training),
        wait_seconds=sum(one.seconds * (one.record["data_wait"] or 0.0) for one in training),
        evaluation_seconds=sum(one.seconds for one in evaluations),
        loss=next((one.record["loss"] for one in reversed(training)), None),
        val_top1=next((one.record["val_top1"] for one in reversed(evaluations)), None),
    )
