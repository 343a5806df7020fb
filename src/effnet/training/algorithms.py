"""Which algorithm cuDNN convolves with: by its rules, or by trying those that it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

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


@contextmanager
def by_rules() -> Iterator[None]:
    """Let cuDNN go by its rules for the length of a ``with`` block: for shapes too rare to be tried out.

    In an evaluation of few batches, of which the last one is smaller, trying takes longer than computing.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
