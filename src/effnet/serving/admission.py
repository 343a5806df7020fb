"""How much is in the service at a time: bytes that are being read, and images that wait for an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from effnet.serving.refusals import RefusalError

_RETRY_AFTER_S = 1


class Admission:
    """Counts what has been let in, and refuses what is too much; for one event loop.

    Args:
        max_images: Most images that have been let in and not been answered.
        max_held_bytes: Most bytes of bodies in memory.
    """

    def __init__(self, *, max_images: int, max_held_bytes: int) -> None:
        self._max_images = max_images
        self._max_held_bytes = max_held_bytes
        self.images = 0
        self.held_bytes = 0

    def check_room(self) -> None:
        """Refuse a request before its body is read where not even one more image would be let in.

        Raises:
            RefusalError: 429.
        """
        self._check_images(1)

    @contextmanager
    def admit(self, images: int) -> Iterator[None]:
        """Count images until they have been answered.

        Raises:
            RefusalError: 429: they are too many just now.
        """
        self._check_images(images)
        self.images += images
        try:
            yield
        finally:
            self.images -= images

    def hold(self, count: int) -> None:
        """Count bytes that have arrived; `release` must be called for them.

        Raises:
            RefusalError: 429: they are too many just now, and are not counted.
        """
        if self.held_bytes + count > self._max_held_bytes:
            raise RefusalError(
                429, "too many uploads at a time; try again in a moment", retry_after_s=_RETRY_AFTER_S
            )
        self.held_bytes += count

    def release(self, count: int) -> None:
        """Forget bytes that `hold` has counted."""
        self.held_bytes -= count

    def _check_images(self, images: int) -> None:
        if self.images + images > self._max_images:
            raise RefusalError(
                429,
                f"{self.images} images are waiting and at most {self._max_images} may; try again in a moment",
                retry_after_s=_RETRY_AFTER_S,
            )
