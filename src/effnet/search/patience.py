"""Waiting for a database that is away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from effnet.errors import UnreachableError

Answer = TypeVar("Answer")

_FIRST_WAIT_SECONDS = 0.25
_LONGEST_WAIT_SECONDS = 15.0
_LOOK_SECONDS = 0.25


def _silent(_message: str) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to wait, and who is told."""

    seconds: float = 600.0
    """From the first failure to the last attempt; 0: one attempt."""
    announce: Callable[[str], None] = _silent
    """Told once that the database is away, and once that it is back."""
    is_stopped: Callable[[], bool] = _never
    """Whether somebody has asked to stop meanwhile, so that waiting ends."""

    def persist(self, action: Callable[[], Answer]) -> Answer:
        """Do something once the database can be reached. It must be such that doing it twice is no harm.

        Raises:
            UnreachableError: It could not be reached for so long; the reason of the last attempt.
        """
        begun, wait, is_away = time.monotonic(), _FIRST_WAIT_SECONDS, False
        while True:
            try:
                answer = action()
            except UnreachableError as error:
                left = begun + self.seconds - time.monotonic()
                if left <= 0 or self.is_stopped():
                    raise
                if not is_away:
                    self.announce(f"{error}; trying again for {self.seconds:.0f} s")
                    is_away = True
                self._sleep(min(wait, left))
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            else:
                if is_away:
                    self.announce(f"the study is back after {time.monotonic() - begun:.0f} s")
                return answer

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.is_stopped():
            time.sleep(min(left, _LOOK_SECONDS))
