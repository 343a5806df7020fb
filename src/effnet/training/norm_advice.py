"""Advice against batches that are too small for batch norm."""

from __future__ import annotations

from effnet.config import Config
from effnet.data.processes import ONE_PROCESS, Processes
from effnet.schedule.progressive import StageSchedule
from effnet.training.parallel import micro_batches

ENOUGH_IMAGES = 16
"""From which on the statistics of a batch are close to those of all images."""


def norm_advice(config: Config, schedule: StageSchedule, processes: Processes = ONE_PROCESS) -> str:
    """Return a line about the stage with the fewest images for batch norm, empty where they are enough.

    Args:
        config: Of the run. With ``train.freeze_norm``, or where only the classifier learns, nothing depends
            on the batch.
        schedule: Its stages.
        processes: Which train together.
    """
    images, stage = min(
        (_images_at_once(config, settings.batch_size, processes), settings.stage)
        for settings in schedule.stages
    )
    is_loaded = config.train.freeze_norm or config.train.head_epochs >= schedule.epoch(schedule.total_steps)
    if is_loaded or images >= ENOUGH_IMAGES:
        return ""
    remedies = ["a larger train.batch_size", "train.freeze_norm=true with loaded weights"]
    if config.train.micro_batch_size:
        remedies.insert(1, "a larger train.micro_batch_size")
    if processes.count > 1 and config.distributed.norm != "all":
        remedies.insert(1, "distributed.norm=all")
    return (
        f"batch norm has only {images} images at a time in stage {stage + 1}, and is unreliable below "
        f"{ENOUGH_IMAGES}: {', '.join(remedies[:-1])} or {remedies[-1]} helps"
    )


def _images_at_once(config: Config, batch_size: int, processes: Processes) -> int:
    """Return over how many images batch norm takes its statistics, at the least."""
    groups = {"local": 1, "group": config.distributed.norm_group, "all": processes.count}
    together = min(groups[config.distributed.norm], processes.count)
    share = batch_size // processes.count
    return share // micro_batches(batch_size, processes, config.train.micro_batch_size) * together
