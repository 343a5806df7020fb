"""One way in a process of its own: it is told what to do on its input, line by line, and answers in JSON."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# As `effnet` itself does before torch is loaded; the others get it as well, although it is not their default.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from safetensors.torch import load_file, save_file

from effnet.training.timing import fair_clock, time_calls
from side_by_side.answering import answer_all
from side_by_side.case import Case

MODULES = {"effnet": "ours", "timm": "with_timm", "torchvision": "with_torchvision", "keras": "with_keras"}


class Way:
    """What answers the requests.

    Args:
        library: Whose way it is.
        name: As in the tables of its module.
    """

    def __init__(self, library: str, name: str) -> None:
        self._library, self._name, self._made, self._folder = library, name, None, Path()

    def prepare(self, case: dict[str, Any], folder: str) -> dict[str, Any]:
        """Get ready; the first way also writes what the others start from."""
        self._made, self._folder = None, Path(folder)
        gc.collect()
        started, wanted = time.perf_counter(), Case(**case)
        library = import_module(f"side_by_side.{MODULES[self._library]}")
        is_first = not (self._folder / "timm.safetensors").exists()
        if wanted.kind == "train":
            self._made = library.TRAIN[self._name](wanted, self._folder)
            if is_first:
                self._made.give()
        else:
            if is_first:
                library.give_network(wanted, self._folder)
            pixels = load_file(self._folder / "pixels.safetensors")["pixels"]
            self._made = library.INFER[self._name](wanted, self._folder, pixels)
        return {
            "seconds": time.perf_counter() - started,
            "threads": torch.get_num_threads(),
            "told": getattr(self._made, "told", {}),
        }

    def check(self, steps: int, conventions: str) -> dict[str, Any]:
        """Return the first losses, or write the logits; ours by the conventions of any library."""
        options = {"conventions": conventions} if self._library == "effnet" else {}
        if hasattr(self._made, "check"):
            return {"losses": self._made.check(steps, **options)}
        file = self._folder / f"{self._name} {conventions}.logits"
        is_borrowed = conventions not in {"effnet", self._library}
        logits = self._made.logits_by(conventions) if is_borrowed else self._made.logits()
        save_file({"logits": logits.clone().contiguous()}, file)
        return {"logits": str(file)}

    def time(self, calls: int, *, is_rested: bool = False) -> dict[str, Any]:
        """Return the seconds of each call, by `fair_clock`, and the processors' seconds of all of them.

        Args:
            calls: How many.
            is_rested: Whether `rest` came before; then a call that is not timed gets the memory back.
        """
        if is_rested:
            self._made.call()
        spent = time.process_time()
        seconds = time_calls(self._made.call, calls, torch.device("cpu"), fair_clock())
        return {"seconds": seconds, "cpu": time.process_time() - spent}

    def rest(self) -> dict[str, Any]:
        """Give back what memory is free, for those who are next; return the most that it ever had."""
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


if __name__ == "__main__":
    answer_all(Way(*sys.argv[1:]))
