"""Ctrl-C and a request to terminate end a run at the next step, not in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from torch.distributed import is_torchelastic_launched


class Interruption:
    """Whether somebody has asked the run to stop."""

    def __init__(self) -> None:
        self.is_requested = False
        # torchrun passes on what its processes may have got already, and kills those that take too long.
        self._is_patient = is_torchelastic_launched()

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.is_requested and not self._is_patient:
            raise KeyboardInterrupt
        self.is_requested = True


@contextmanager
def listen_for_interruption() -> Iterator[Interruption]:
    """Note SIGINT and SIGTERM instead of stopping; the second one stops at once, unless torchrun sent it.

    Outside the main thread, where Python cannot handle signals, nothing is changed.
    """
    interruption = Interruption()
    handlers = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, interruption._request)
    except ValueError:
        handlers.clear()
    try:
        yield interruption
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
