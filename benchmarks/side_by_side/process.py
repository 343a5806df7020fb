"""A script in a process of its own, asked in lines of JSON; it answers by `side_by_side.answering`."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


class OutOfTimeError(Exception):
    """The limit is reached."""


class Worker:
    """A way in its process, with a cache of its own: what was tuned on this machine is nobody's default.

    Args:
        script: What answers.
        arguments: Of its command line.
    """

    def __init__(self, script: Path, *arguments: str) -> None:
        self._arguments = arguments
        self._cache = tempfile.TemporaryDirectory(prefix="side-by-side-cache-")
        self._process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"EFFNET_CACHE": self._cache.name},
        )

    def send(self, do: str, **request: Any) -> None:
        """Ask for something; `answer` has it, or why there is none."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do} | request).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self, deadline: float = math.inf) -> dict[str, Any]:
        """Return what was asked for.

        Raises:
            OutOfTimeError: It is not there by then, by `time.monotonic`.
            RuntimeError: The way failed.
        """
        out = self._process.stdout
        assert out is not None
        left = max(deadline - time.monotonic(), 0)
        if left < math.inf and not select.select([out], [], [], left)[0]:
            raise OutOfTimeError
        line = out.readline()
        found: dict[str, Any] = json.loads(line) if line else {"error": self._end()}
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def _end(self) -> str:
        code = self._process.wait()
        killed = "; where nobody has killed it, memory ran out" if code == -signal.SIGKILL else ""
        return f"{' '.join(self._arguments)}: its process has ended with {code}{killed}"

    def ask(self, do: str, *, deadline: float = math.inf, **request: Any) -> dict[str, Any]:
        """Ask and wait."""
        self.send(do, **request)
        return self.answer(deadline)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()  # Which closes its pipes, whatever is still in them.
        self._cache.cleanup()
