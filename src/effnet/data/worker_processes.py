"""Processes that do parts of this one's work, where threads would stand in each other's way.

Threads share the interpreter's lock. Decoding gives it away, but many times an image, and with more than a
few threads waiting for it costs more than they bring. These processes are new ones, not forks in which a lock
could be held for ever, and what they are given lies in shared memory without a name, which nobody needs to
remove. Each is asked by a thread, so order and errors are those of threads.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
from jaxtyping import UInt8

from effnet.data.failures import WorkerError
from effnet.data.sending import Packed, Shared, share, shared_memory
from effnet.data.worker_main import Beginning, next_message

FEWEST_PROCESSES = 4
"""Fewer prepare hardly more images than as many threads."""
FEWEST_IMAGES = 5_000
"""To be read once; fewer take threads some seconds."""
MOST_PROCESSES = 64
"""Each takes two of the files that a process may have open; Linux allows 1,024 by default."""
WorkerKind: TypeAlias = Literal["threads", "processes"]
Memory: TypeAlias = UInt8[np.ndarray, " B"]

_PATIENCE = 10.0
"""Seconds that processes get to end by themselves."""
# The program that started this process is not run again; its modules are found where it finds them. At the
# end nothing is left to tidy up, which takes libraries a while.
_PROGRAM = """
import os, sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
from effnet.data.worker_main import serve
serve(connection)
os._exit(0)
"""
# Each works in one thread: more would stand in the other processes' way. None of them uses a GPU.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")


def can_start_processes() -> bool:
    """Whether this system has what they need."""
    if not hasattr(os, "memfd_create") or not sys.executable or getattr(sys, "frozen", False):
        return False
    try:
        os.close(shared_memory(1))
    except OSError:  # Some sandboxes forbid it.
        return False
    return True


class Worker(Generic[_Asked, _Answer]):
    """A process, as the thread that asks it sees it."""

    def __init__(self, number: int, work: Shared, memory_bytes: int) -> None:
        self._name = f"effnet-data-{number}"
        self._connection, theirs = Pipe()
        descriptor = shared_memory(max(memory_bytes, 1))
        try:
            self.memory: Memory = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)
            """Where its results are; they stay until it is asked again."""
            inherited = (theirs.fileno(), descriptor, work.descriptor)
            with _signals_blocked():
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=os.environ | _ENVIRONMENT,
                    pass_fds=inherited,
                )
        except OSError as error:
            self._connection.close()
            raise WorkerError(f"the loader process {self._name} cannot be started: {error}") from error
        finally:
            theirs.close()
            os.close(descriptor)
        self._is_ready = False
        self._failure: Exception | None = None
        with suppress(OSError):  # It may have ended already; who asks it is told.
            self._connection.send(sys.path)
            self._connection.send(Beginning(self._name, os.getpid(), descriptor, work))

    def ask(self, asked: _Asked) -> _Answer:
        """Let it do its work.

        Raises:
            WorkerError: It died, or its work did of what was not expected.
            UserError: Its work says so.
            UnreachableError: The same.
        """
        self.wait_until_ready()
        with suppress(OSError):  # It has ended; that there is no answer says so.
            self._connection.send(asked)
        answer: _Answer = self._answer()
        return answer

    def wait_until_ready(self) -> None:
        """Wait until it has all that it needs; errors as of `ask`."""
        if not self._is_ready:
            try:
                self._answer()
            except Exception as error:
                self._failure = error
            self._is_ready = True
        if self._failure is not None:
            raise self._failure

    def _answer(self) -> Any:  # noqa: ANN401 - whatever its work returns
        try:
            answer = next_message(self._connection, lambda: self._process.poll() is None)
        except (EOFError, OSError):
            self.end(time.monotonic() + _PATIENCE)
            code = self._process.returncode
            why = "; where nobody has killed it, memory ran out" if code == -signal.SIGKILL else ""
            raise WorkerError(f"the loader process {self._name} has ended with {code}{why}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask_to_end(self) -> None:
        """Ask it to end when it has done its work."""
        with suppress(OSError):  # It may have ended.
            self._connection.send(None)
        self._connection.close()

    def end(self, until: float) -> None:
        """Wait for its end, and kill it where that does not come."""
        try:
            self._process.wait(max(until - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # Who waits for a disk cannot even be killed.
                self._process.wait(1.0)


class WorkerProcesses(Generic[_Asked, _Answer]):
    """Some processes that do the same work; several threads may ask them.

    Args:
        work: A function of the memory for results and of what is asked, packed to be sent.
        count: How many; `MOST_PROCESSES` at most.
        memory_bytes: For results, of each.
    """

    def __init__(self, work: Packed, count: int, memory_bytes: int) -> None:
        self._workers: list[Worker[_Asked, _Answer]] = []
        self._idle: SimpleQueue[Worker[_Asked, _Answer]] = SimpleQueue()
        shared = share(work)
        try:
            for number in range(min(count, MOST_PROCESSES)):
                self._workers.append(Worker(number, shared, memory_bytes))
                self._idle.put(self._workers[-1])
        except BaseException:
            self.close()
            raise
        finally:
            os.close(shared.descriptor)

    def wait_until_ready(self) -> None:
        """Wait for all of them; nobody may have asked them yet. Errors as of `Worker.ask`."""
        for worker in self._workers:
            worker.wait_until_ready()

    @contextmanager
    def idle(self) -> Iterator[Worker[_Asked, _Answer]]:
        """Wait for a process that has nothing to do; nobody else asks it in the ``with`` block."""
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End them."""
        for worker in self._workers:
            worker.ask_to_end()
        until = time.monotonic() + _PATIENCE
        for worker in self._workers:
            worker.end(until)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let processes that are started in the ``with`` block never see Ctrl-C, nor a request to end.

    These may go to all processes; who started them decides, and tells them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
