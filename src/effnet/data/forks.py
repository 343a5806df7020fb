"""Processes forked from this one, which do parts of its work where threads would stand in each other's way.

Threads share the interpreter's lock. Decoding gives it away, but many times an image, and with more than a
few threads waiting for it costs more than they bring. A forked process has all that this one has, images that
are open among it, and uses no GPU. Each is asked by a thread, so order and errors are those of threads.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits

from effnet.data.failures import WorkerError
from effnet.data.images import LabelledImages
from effnet.errors import UnreachableError, UserError

_PATIENCE = 10.0
"""Seconds that a process gets to end by itself."""

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


def can_fork(images: LabelledImages) -> bool:
    """Whether processes can read these images: not over connections, nor whole blocks at a time."""
    return sys.platform == "linux" and images.expect is None and not images.blocks


class Forks(Generic[_Asked, _Answer]):
    """Some processes, each with work of its own; several threads may ask them.

    Args:
        works: What each of them does with what it is asked.
    """

    def __init__(self, works: Sequence[Callable[[_Asked], _Answer]]) -> None:
        self._all: list[_Fork[_Asked, _Answer]] = []
        self._idle: SimpleQueue[int] = SimpleQueue()
        for number, work in enumerate(works):
            self._all.append(_Fork(work, number, self._all))
            self._idle.put(number)

    @contextmanager
    def idle(self) -> Iterator[int]:
        """Wait for a process that has nothing to do; nobody else asks it in the ``with`` block."""
        number = self._idle.get()
        try:
            yield number
        finally:
            self._idle.put(number)

    def ask(self, number: int, asked: _Asked) -> _Answer:
        """Let a process do its work.

        Raises:
            WorkerError: It died, or its work did of what was not expected.
            UserError: Its work says so.
            UnreachableError: The same.
        """
        return self._all[number].ask(asked)

    def ask_any(self, asked: _Asked) -> _Answer:
        """Let a process that has nothing to do do its work; see `ask`."""
        with self.idle() as number:
            return self.ask(number, asked)

    def close(self) -> None:
        """End them."""
        for fork in self._all:
            fork.close()


class _Fork(Generic[_Asked, _Answer]):
    """A process, as the thread that asks it sees it."""

    def __init__(
        self, work: Callable[[_Asked], _Answer], number: int, others: Sequence[_Fork[_Asked, _Answer]]
    ) -> None:
        context = get_context("fork")
        self._connection, theirs = context.Pipe()
        # Or the others would hold connections open that this process has closed by ending.
        not_theirs = [self._connection, *(other._connection for other in others)]
        self._process: BaseProcess = context.Process(
            target=_serve, args=(theirs, not_theirs, work), name=f"effnet-data-{number}", daemon=True
        )
        with warnings.catch_warnings():
            # Python warns where there are threads, whose locks a fork may find held: they are torch's, and
            # are not taken by what reads and cuts images.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()

    def ask(self, asked: _Asked) -> _Answer:
        try:
            self._connection.send(asked)
            answer: _Answer | Exception = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise WorkerError(
                f"the loader process {self._process.name} has ended with {self._process.exitcode}; where "
                "nobody has killed it, memory ran out"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._connection.close()  # By which it ends.
        self._process.join(_PATIENCE)
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, not_ours: Sequence[Connection], work: Callable[[_Asked], _Answer]) -> None:
    """Work as long as somebody asks for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that was forked.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    thread = threading.current_thread()
    thread.name = f"{get_context().current_process().name} (a process)"
    gc.freeze()  # What was inherited is not this process's to tidy up.
    threadpool_limits(1)  # Or products of matrices would start threads in each process, which spin.
    for other in not_ours:
        other.close()
    while True:
        try:
            asked: _Asked = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: _Answer | Exception = work(asked)
        except Exception as error:
            answer = _to_send(error, thread.name)
        try:
            connection.send(answer)
        except OSError:
            return


def _to_send(error: Exception, name: str) -> Exception:
    """Return an error that another process can raise."""
    for kind in (UserError, UnreachableError, WorkerError):
        if isinstance(error, kind):
            return kind(str(error))
    return WorkerError(f"the loader thread {name} died: {type(error).__name__}: {error}")
