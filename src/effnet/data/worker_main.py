"""What a process of `effnet.data.worker_processes` does, from its start to its end.

It imports what its work needs, and nothing of the program that started it.
"""

from __future__ import annotations

import mmap
import os
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from effnet.data.failures import WorkerError
from effnet.data.sending import Shared, receive
from effnet.errors import UnreachableError, UserError

_LOOK_SECONDS = 2.0
"""After which a process that is asked nothing looks whether the one that started it is still there."""


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
    with suppress(OSError):  # Nobody may want the answer any more.
        try:
            work = receive(beginning.work)
        except Exception as error:
            connection.send(_to_send(error))
            return
        connection.send(None)
        while (asked := _next(connection, beginning.parent)) is not None:
            try:
                answer = work(memory, asked)
            except Exception as error:
                answer = _to_send(error)
            connection.send(answer)


def _next(connection: Connection, parent: int) -> object:
    """Return what is asked next; None: nothing any more."""
    try:
        while not connection.poll(_LOOK_SECONDS):
            # A process that was forked meanwhile may hold the other end open.
            if os.getppid() != parent:
                return None
        return connection.recv()
    except (EOFError, OSError):
        return None


def _to_send(error: Exception) -> Exception:
    """Return an error that another process can raise."""
    for kind in (UserError, UnreachableError, WorkerError):
        if isinstance(error, kind):
            return kind(str(error))
    name = threading.current_thread().name
    return WorkerError(f"the loader thread {name} died: {type(error).__name__}: {error}")
