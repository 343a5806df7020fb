"""The processes that train or evaluate together, as torchrun starts them, and what they tell each other.

Messages are small, lie in the memory of the processor and go through gloo, beside whatever the network uses:
they never wait for a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from effnet.data.loader import Share
from effnet.data.threads import thread_count
from effnet.errors import UserError

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_TIMEOUT = timedelta(minutes=30)


class LostProcessError(Exception):
    """Another process of the run is gone, and this one cannot go on without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """This process among those of a run; every method is a call that all of them must make."""

    rank: int = 0
    """This one, from 0."""
    count: int = 1
    local_rank: int = 0
    """This one among those of its machine, from 0."""
    local_count: int = 1
    """On its machine."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and tells the user."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Return which images of a batch are this process's."""
        return Share(self.rank, self.count)

    def workers(self, asked: int) -> int:
        """Return how many threads prepare images in this process.

        Args:
            asked: As ``data.workers``; 0: the processors of the machine, shared among its processes.
        """
        return asked if asked or self.local_count == 1 else max(thread_count(0) // self.local_count, 1)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return any(self.sum([float(flag)]))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum over all processes of each value; not finite where one is not finite."""
        return self._sum(values) if self.count > 1 else list(values)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of the processes.

        Args:
            rows: One row for whatever there is one of, perhaps none; further axes as in all processes.
        """
        if self.count == 1:
            return rows
        counts = [int(count) for count in self._gather(torch.tensor([len(rows)]))]
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = torch.split(self._gather(padded), max(counts))
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def gather_text(self, text: str) -> list[str]:
        """Return the text of every process."""
        encoded = torch.frombuffer(bytearray(text.encode() + b"\0"), dtype=torch.uint8)
        *texts, _ = bytes(self.gather(encoded).tolist()).decode().split("\0")
        return texts

    def wait(self) -> None:
        """Return when all processes are here."""
        self.sum([0.0])

    def _sum(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        with _told_when_lost():
            distributed.all_reduce(total)
        return total.tolist()

    def _gather(self, rows: Tensor) -> Tensor:
        parts = rows.new_empty((self.count * len(rows), *rows.shape[1:]))
        with _told_when_lost():
            distributed.all_gather_into_tensor(parts, rows.contiguous())
        return parts


ONE_PROCESS = Processes()


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Meet the other processes that torchrun has started, and part from them at the end of a ``with`` block.

    Without torchrun, or if it has started this process alone, there is nobody to meet.

    Args:
        device: As ``train.device``. Each process of a machine takes the GPU of its number there.

    Yields:
        This process.

    Raises:
        UserError: A machine has fewer GPUs than processes, or one GPU is named for several processes.
        LostProcessError: Another process has ended, or cannot be reached.
    """
    rank, local_rank, count, local_count = (int(os.environ.get(name, "0")) for name in _VARIABLES)
    if count <= 1:
        yield ONE_PROCESS
        return
    processes = Processes(rank=rank, count=count, local_rank=local_rank, local_count=local_count)
    if device.startswith("cuda:"):
        raise UserError(
            f"train.device is '{device}', but {count} processes train together and each takes a GPU of its "
            "own; give 'cuda', or start one process"
        )
    if device == "cpu" or not torch.cuda.is_available():
        backend = "gloo"
    else:
        backend = "cpu:gloo,cuda:nccl"
        if local_count > torch.cuda.device_count():
            raise UserError(
                f"{local_count} processes were started on a machine that shows "
                f"{torch.cuda.device_count()} CUDA devices; start one for each with --nproc-per-node"
            )
        torch.cuda.set_device(local_rank)
    with _told_when_lost():
        distributed.init_process_group(backend, timeout=_TIMEOUT)
        # What goes wrong below ends the process, and its connections with it: nobody waits for the others.
        yield processes
        distributed.destroy_process_group()


@contextmanager
def _told_when_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # gloo's errors have no class of their own.
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise LostProcessError(
            f"another process of the run has ended; its own message says why ({_first_line(error)})"
        ) from error


def _first_line(error: RuntimeError) -> str:
    return str(error).strip().split("\n")[0]
