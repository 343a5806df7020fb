"""How long training waits for images, and what to do against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from effnet.config import Config
from effnet.data.augment import is_augmented
from effnet.data.loader import Batch
from effnet.data.sources import DIGITS
from effnet.data.store import is_store
from effnet.native import has_numba
from effnet.training.stopwatch import Stopwatch


class WaitClock:
    """Adds up the time in which steps could not go on because their batch was not there.

    On a GPU steps are queued: the loop may ask for images long before the GPU needs them. What counts there
    is how long the GPU itself had nothing to do while the loop waited.

    Args:
        device: Where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._idle_from: torch.cuda.Event | None = None
        self._waits: list[tuple[float, torch.cuda.Event, torch.cuda.Event]] = []

    def watch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches; what is queued until the next one is asked for belongs to the step."""
        while True:
            clock = Stopwatch()
            batch = next(batches, None)
            if batch is None:
                return
            self._add(clock.seconds)
            yield batch
            if self._device.type == "cuda":
                self._idle_from = self._mark()

    def take(self) -> float:
        """Return the seconds since they were last taken; all that was queued must be done."""
        waits, self._waits = self._waits, []
        seconds, self._seconds = self._seconds, 0.0
        return seconds + sum(min(waited, begun.elapsed_time(end) / 1000) for waited, begun, end in waits)

    def _add(self, waited: float) -> None:
        if self._idle_from is None:
            self._seconds += waited
        else:
            self._waits.append((waited, self._idle_from, self._mark()))

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event


def wait_advice(config: Config, *, is_gpu: bool, processors: int) -> str:
    """Return what can be done against waiting for images, as far as it is not done yet.

    Args:
        config: Of the run.
        is_gpu: Whether it trains on one.
        processors: That this process may use.
    """
    ways = []
    if 0 < config.data.workers < processors:
        ways.append(f"raise data.workers from {config.data.workers} to the {processors} processors")
    is_read = not config.data.resident
    is_on_workers = config.augment.place == "worker" and is_augmented(config.augment, config.progressive)
    if is_read and is_gpu and is_on_workers:
        ways.append("set augment.place=device")
    if is_read and config.data.source != DIGITS and not has_numba():
        ways.append("install Numba (`pip install effnet[cpu]`), which spares JPEG files' parts beside crops")
    if is_read and can_be_prepared(config.data.source):
        ways.append("store small copies of the images with `effnet data prepare`")
    return "; ".join([*ways, "`effnet tune` measures what is fastest"])


def can_be_prepared(source: str) -> bool:
    """Whether data is neither a prepared store, here or at an address, nor decoded as it comes."""
    return source != DIGITS and "://" not in source and not is_store(Path(source))
