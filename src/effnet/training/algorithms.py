"""Which algorithm cuDNN convolves with: by its rules, or by trying those that it has."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from effnet.schedule.progressive import StageSettings

_MOST_SHAPES = 16


def try_algorithms(device: torch.device, stages: Iterable[StageSettings]) -> None:
    """Let cuDNN try its algorithms on the first batch of each shape, where a run has few shapes.

    A run whose image size changes all the time would spend its time trying.

    Args:
        device: Nothing is done for a processor.
        stages: Of the run.
    """
    if device.type == "cuda":
        shapes = {(stage.image_size, stage.batch_size) for stage in stages}
        torch.backends.cudnn.benchmark = len(shapes) <= _MOST_SHAPES
