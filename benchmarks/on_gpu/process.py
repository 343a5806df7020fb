"""The side of a way's process that asks; `on_gpu.worker` answers."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class OutOfTimeError(Exception):
    """The limit is reached."""


class Worker:
    """A way in its process, with a cache of its own for what effnet tunes."""

    def __init__(self, device: str, precision: str, cache: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), device, precision],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"EFFNET_CACHE": str(cache)},
        )

    def send(self, do: str, **request: Any) -> None:
        """Ask for something; `answer` has it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do} | request).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, deadline: float) -> dict[str, Any]:
        """Return what was asked for.

        Raises:
            OutOfTimeError: It is not there by then, by `time.monotonic`.
            RuntimeError: The way failed.
        """
        out = self._process.stdout
        assert out is not None
        if not select.select([out], [], [], max(deadline - time.monotonic(), 0))[0]:
            raise OutOfTimeError
        line = out.readline()
        found: dict[str, Any] = json.loads(line) if line else {"error": "its process has ended"}
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def ask(self, deadline: float, do: str, **request: Any) -> dict[str, Any]:
        """Ask and wait."""
        self.send(do, **request)
        return self.answer(deadline)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        with self._process:  # Which closes its pipes.
            pass
