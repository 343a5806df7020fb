"""What a process of `effnet.data.worker_processes` does, from its start to its end.

It imports what its work needs, and nothing of the program that started it.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from effnet.data.failures import WorkerError
from effnet.data.sending import Shared, receive
from effnet.errors import UnreachableError, UserError

_LOOK_SECONDS = 2.0
"""Without a message, after which a process looks whether the other one is still there."""


class Beginning(NamedTuple):
    """What a process is told first."""

    name: str
    parent: int
    """Number of the process that asks."""
    memory: int
    """Descriptor of the memory for results."""
    work: Shared


def serve(connection: Connection) -> None:
    """Work as long as somebody asks for it: a message is asked, None ends it, and each gets an answer.

    None is sent when the process is ready, or why it is not.

    Args:
        connection: To the process that asks, which tells the `Beginning` first.
    """
    beginning: Beginning = connection.recv()
    threading.current_thread().name = f"{beginning.name} (a process)"
    memory = np.frombuffer(mmap.mmap(beginning.memory, 0), np.uint8)
    with suppress(EOFError, OSError):  # Who asks may have ended.
        try:
            work = receive(beginning.work)
        except Exception as error:
            connection.send(_to_send(error))
            return
        connection.send(None)
        while (asked := next_message(connection, lambda: os.getppid() == beginning.parent)) is not None:
            try:
                answer = work(memory, asked)
            except Exception as error:
                answer = _to_send(error)
            connection.send(answer)


def next_message(connection: Connection, is_there: Callable[[], bool]) -> Any:  # noqa: ANN401 - any message
    """Return what the process at the other end says next.

    Args:
        connection: To the process.
        is_there: Whether it lives still: one that was forked meanwhile may hold its end open.

    Raises:
        EOFError: It has ended.
        OSError: The same.
    """
    while not connection.poll(_LOOK_SECONDS):
        if not is_there() and not connection.poll():
            raise EOFError
    return connection.recv()


def _to_send(error: Exception) -> Exception:
    """Return an error that another process can raise."""
    for kind in (UserError, UnreachableError, WorkerError):
        if isinstance(error, kind):
            return kind(str(error))
    name = threading.current_thread().name
    return WorkerError(f"the loader thread {name} died: {type(error).__name__}: {error}")
