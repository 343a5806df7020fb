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
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits

from effnet.data.failures import WorkerError
from effnet.data.images import LabelledImages
from effnet.errors import UnreachableError, UserError

MOST_FORKS = 64
"""Each takes three of the files that a process may have open; Linux allows 1,024 by default."""
_PATIENCE = 10.0
"""Seconds that processes get to end by themselves."""

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


def can_fork(images: LabelledImages) -> bool:
    """Whether processes can read these images: not over connections, nor whole blocks at a time.

    Nor where this process is one that may have none of its own, as those of `multiprocessing.Pool`.
    """
    return (
        sys.platform == "linux"
        and not current_process().daemon
        and images.expect is None
        and not images.blocks
    )


class Forks(Generic[_Asked, _Answer]):
    """Some processes, each with work of its own; several threads may ask them.

    Args:
        works: What each of them does with what it is asked; `MOST_FORKS` at most.
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
            fork.ask_to_end()
        until = time.monotonic() + _PATIENCE
        for fork in self._all:
            fork.end(until)


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
        # At the end of this process Python asks its children to end by a signal that they do not heed.
        self._at_exit = Finalize(None, self._process.kill, exitpriority=10)

    def ask(self, asked: _Asked) -> _Answer:
        try:
            self._connection.send(asked)
            answer: _Answer | Exception = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            why = "; where nobody has killed it, memory ran out" if code == -signal.SIGKILL else ""
            raise WorkerError(f"the loader process {self._process.name} has ended with {code}{why}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask_to_end(self) -> None:
        self._connection.close()

    def end(self, until: float) -> None:
        self._process.join(max(until - time.monotonic(), 0.0))
        self._process.kill()
        self._process.join(1.0)  # Who waits for a disk that does not answer cannot even be killed.
        self._at_exit.cancel()


def _serve(connection: Connection, not_ours: Sequence[Connection], work: Callable[[_Asked], _Answer]) -> None:
    """Work as long as somebody asks for it."""
    # Ctrl-C and requests to end may go to all processes; who was forked decides, and then closes connections.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    thread = threading.current_thread()
    thread.name = f"{current_process().name} (a process)"
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
