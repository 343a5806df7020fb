"""One way in a process of its own: it is told what to do on its input, line by line, and answers in JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import sys
import time
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# As `effnet` itself does before torch is loaded; the others get it as well, although it is not their default.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from safetensors.torch import load_file, save_file

from effnet.training.timing import fair_clock
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

    def prepare(self, case: Case, folder: Path) -> dict[str, Any]:
        """Get ready; the first way also writes what the others start from."""
        self._made, self._folder = None, folder
        gc.collect()
        started = time.perf_counter()
        library = import_module(f"side_by_side.{MODULES[self._library]}")
        is_first = not (folder / "timm.safetensors").exists()
        if case.kind == "train":
            self._made = library.TRAIN[self._name](case, folder)
            if is_first:
                self._made.give()
        else:
            if is_first:
                library.give_network(case, folder)
            pixels = load_file(folder / "pixels.safetensors")["pixels"]
            self._made = library.INFER[self._name](case, folder, pixels)
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
        seconds, spent, clock = [], time.process_time(), fair_clock()
        for _ in range(calls):
            started = clock()
            self._made.call()
            seconds.append(clock() - started)
        return {"seconds": seconds, "cpu": time.process_time() - spent}

    def rest(self) -> dict[str, Any]:
        """Give back what memory is free, for those who are next; return the most that there was."""
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main() -> None:
    """Answer until the input ends; whatever libraries print goes to the error stream."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    way = Way(*sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        what = request.pop("do")
        try:
            if what == "prepare":
                answer = way.prepare(Case(**request["case"]), Path(request["folder"]))
            elif what == "check":
                answer = way.check(request["steps"], request["conventions"])
            elif what == "rest":
                answer = way.rest()
            else:
                answer = way.time(**request)
        except Exception as error:  # Told to whoever asked.
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
