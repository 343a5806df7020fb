"""What ends a thread that prepares images, and is neither the image's fault nor the user's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from effnet.data.pillow import BadImageError
from effnet.errors import UnreachableError, UserError

_EXPECTED = (BadImageError, OSError, UserError, UnreachableError)


class WorkerError(Exception):
    """A thread or process that prepares images died.

    A run can be continued, and dies there again if it is a defect.
    """


@contextmanager
def named_failures(image: str) -> Iterator[None]:
    """Let what was not expected name the thread and the image at which it happened.

    Args:
        image: Its name.

    Raises:
        WorkerError: Something was raised that says nothing about the image, the data or the connection.
    """
    try:
        yield
    except _EXPECTED:
        raise
    except BaseException as error:
        raise WorkerError(
            f"the loader thread {threading.current_thread().name} died at {image}: "
            f"{type(error).__name__}: {error}"
        ) from error
