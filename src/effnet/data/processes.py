"""The processes that train or evaluate together, as torchrun starts them, and what they tell each other.

Messages are small, lie in the memory of the processor and go through gloo, beside whatever the network uses:
they never wait for a GPU.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from effnet.data.loader import Share
from effnet.data.threads import thread_count
from effnet.errors import LostProcessError, UserError

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_TIMEOUT = timedelta(minutes=30)
_POLL_SECONDS = 0.02


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
        return asked or max(thread_count(0) // self.local_count, 1)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return any(self.sum([float(flag)]))

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum over all processes of each value; not finite where one is not finite."""
        return self.total(torch.tensor(values, dtype=torch.float64)).tolist()

    def total(self, counts: Tensor) -> Tensor:
        """Return the sum over all processes of each element."""
        if self.count == 1:
            return counts
        total = counts.clone()
        with _told_when_lost():
            distributed.all_reduce(total)
        return total

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of the processes.

        Args:
            rows: One row for whatever there is one of, perhaps none; further axes as in all processes.
        """
        if self.count == 1:
            return rows
        counts: list[int] = self._gather(torch.tensor([len(rows)])).tolist()
        if not max(counts):
            return rows
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

    def _gather(self, rows: Tensor) -> Tensor:
        parts = rows.new_empty((self.count * len(rows), *rows.shape[1:]))
        with _told_when_lost():
            distributed.all_gather(list(torch.split(parts, len(rows))), rows.contiguous())
        return parts


ONE_PROCESS = Processes()


def this_process() -> Processes:
    """Return what torchrun says about this process; without torchrun it is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ONE_PROCESS
    rank, local_rank, count, local_count = (int(os.environ[name]) for name in _VARIABLES)
    return Processes(rank=rank, local_rank=local_rank, count=count, local_count=local_count)


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Meet the other processes that torchrun has started, for the length of a ``with`` block.

    Without torchrun, or if it has started this process alone, there is nobody to meet.

    Args:
        device: As ``train.device``. Each process of a machine takes the GPU of its number there.

    Yields:
        This process.

    Raises:
        UserError: A machine has fewer GPUs than processes, or one GPU is named for several processes.
        LostProcessError: Another process has ended, or cannot be reached.
    """
    processes = this_process()
    if processes.count == 1:
        yield processes
        return
    if device.startswith("cuda:"):
        raise UserError(
            f"train.device is '{device}', but {processes.count} processes train together and each takes a "
            "GPU of its own; give 'cuda', or start one process"
        )
    if device == "cpu" or not torch.cuda.is_available():
        backend = "gloo"
    else:
        backend = "cpu:gloo,cuda:nccl"
        if processes.local_count > torch.cuda.device_count():
            raise UserError(
                f"{processes.local_count} processes were started on a machine that shows "
                f"{torch.cuda.device_count()} CUDA devices; start one for each with --nproc-per-node"
            )
        torch.cuda.set_device(processes.local_rank)
    with _told_when_lost():
        if not distributed.is_initialized():
            distributed.init_process_group(
                backend,
                store=_empty_store(processes),
                rank=processes.rank,
                world_size=processes.count,
                timeout=_TIMEOUT,
            )
            atexit.register(distributed.destroy_process_group)
        try:
            yield processes
        except BaseException:
            # Connections end with the process; nobody is there who could part in good order.
            atexit.unregister(distributed.destroy_process_group)
            raise


def _empty_store(processes: Processes) -> Store:
    """Return a part of torchrun's store that all processes know and that nobody has written to.

    torchrun keeps its store when it starts processes again, with the addresses of those that are dead. How
    often they were started does not tell lives apart: its agents on several machines count for themselves.
    """
    store, _, _ = next(rendezvous("env://", timeout=_TIMEOUT))
    own = uuid4().hex
    if not processes.is_first:
        # Who has died does not answer, and what it answered was to another question.
        store.set(f"asks/{processes.rank}", own)
        name = store.get(f"told/{own}").decode()
        store.set(f"{name}/{processes.rank}", "")
        return PrefixStore(name, store)
    others = range(1, processes.count)
    while not store.check([f"{own}/{rank}" for rank in others]):
        for rank in others:
            if store.check([f"asks/{rank}"]):
                store.set(f"told/{store.get(f'asks/{rank}').decode()}", own)
        time.sleep(_POLL_SECONDS)
    return PrefixStore(own, store)


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
