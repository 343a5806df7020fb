"""With how many threads a processor computes the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def computing_threads(threads: int, device: torch.device) -> Iterator[None]:
    """Compute with a run's number of threads for the length of a ``with`` block, where it has one.

    Args:
        threads: Of the run; 0: as many as compute already.
        device: Of the run; beside a GPU a processor has little to compute.
    """
    before = torch.get_num_threads()
    if threads and device.type == "cpu":
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
