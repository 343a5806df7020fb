"""One way in a process of its own: it is told what to do on its input, line by line, and answers in JSON."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from side_by_side.answering import answer_all
from side_by_side.case import Case, Precision
from side_by_side.ours import TrainOurs

from effnet.profiling.device import Setting, measure_peaks
from effnet.training.preflight import peak_memory, synchronize
from effnet.training.timing import time_calls
from on_gpu.cases import INFER, TRAIN
from on_gpu.shares import measure_shares
from on_gpu.steps import make

_CHECKED = 2
"""Steps whose losses are compared, or images whose logits are."""


class Process:
    """What answers the requests.

    Args:
        device: ``cuda`` or ``cpu``.
        precision: Of everything.
    """

    def __init__(self, device: str, precision: Precision) -> None:
        self._device, self._precision, self._made = torch.device(device), precision, None

    def prepare(self, case: dict[str, Any], way: str, folder: str) -> dict[str, Any]:
        """Get ready: build, compile, and do a call."""
        self._made = None
        self._forget()
        torch._dynamo.reset()
        started, wanted = time.perf_counter(), Case(**case)
        ways = {one.name: one for one in (TRAIN if wanted.kind == "train" else INFER)}
        self._made = make(wanted, ways[way], Path(folder), self._device, self._precision)
        self._made.call()
        synchronize(self._device)
        taken = time.perf_counter() - started
        self._forget()
        return {"seconds": taken}

    def check(self) -> dict[str, Any]:
        """Return the first losses, or some logits."""
        values = self._made.check(_CHECKED)
        self._forget()
        return {"values": values}

    def time(self, calls: int) -> dict[str, Any]:
        """Return the seconds of each call, behind one that does not count, and the peak memory of all."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._made.call()
        seconds = time_calls(self._made.call, calls, self._device)
        memory = self._memory()
        self._forget()
        return {"seconds": list(seconds), **memory}

    def profile(self) -> dict[str, Any]:
        """Return the shares of kernels."""
        self._made.call()  # What was given back has to be made again.
        found = measure_shares(self._made.call, self._device)
        self._forget()
        return found

    def roofs(self) -> dict[str, Any]:
        """Return what the device does at best, and what it is."""
        dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[self._precision]
        setting = Setting(device=self._device, precision=dtype, memory_format=torch.channels_last)
        peaks = measure_peaks(setting)
        about: dict[str, Any] = {"bytes_per_second": peaks.bytes_per_second}
        about["flops_per_second"] = peaks.flops_per_second
        if self._device.type == "cuda":
            own = torch.cuda.get_device_properties(self._device)
            about |= {
                "name": own.name,
                "multiprocessors": own.multi_processor_count,
                "memory_bytes": own.total_memory,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
            }
        self._forget()
        return about

    def _memory(self) -> dict[str, int | None]:
        """Return the peaks of what was allocated and of what was taken from the device for it."""
        if self._device.type != "cuda":
            return {"peak_bytes": None, "reserved_bytes": None}
        return {
            "peak_bytes": peak_memory(self._device),
            "reserved_bytes": torch.cuda.max_memory_reserved(),
        }

    def _forget(self) -> None:
        """Leave the device's memory to the other processes."""
        if isinstance(self._made, TrainOurs):
            self._made.rest()
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    answer_all(Process(*sys.argv[1:]))
