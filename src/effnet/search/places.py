"""Where on this machine a trial runs: its threads, its GPU, and no part in anybody else's torchrun."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from effnet.data.threads import thread_count

_OF_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK",
                "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # fmt: skip
"""By which processes find each other; a trial is one process alone. Others of its names begin as follows."""
_PREFIX = "TORCHELASTIC_"


def trial_threads(workers: int) -> int:
    """Return the threads of each trial, where each process that torchrun started here has so many workers."""
    return max(thread_count(0) // (workers * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))), 1)


def trial_environment(environment: Mapping[str, str], threads: int, place: int) -> dict[str, str]:
    """Return the environment of a trial's process.

    Args:
        environment: Of this process, which torchrun may have started.
        threads: Of the trial.
        place: Number of the worker in this process. Of several GPUs each worker has its own, in turn; the
            workers of torchrun's processes are counted on.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _OF_TORCHRUN and not name.startswith(_PREFIX)
    }
    gpus = _gpus(environment)
    if len(gpus) > 1:
        local_count = int(environment.get("LOCAL_WORLD_SIZE", "1"))
        number = place * local_count + int(environment.get("LOCAL_RANK", "0"))
        kept["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    return kept | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def _gpus(environment: Mapping[str, str]) -> list[str]:
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
