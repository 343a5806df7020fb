"""`effnet serve` as a process of its own, for the benchmarks beside this file."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServingProcess:
    """A service that is ready."""

    process: subprocess.Popen[str]
    address: str
    """Such as ``http://127.0.0.1:8000``."""

    def memory_mib(self) -> float:
        """Return its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def processor_s(self) -> float:
        """Return the seconds that processors have worked for it."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, path: str) -> str:
        """Return what is at a path of it.

        Raises:
            urllib.error.URLError: It does not answer, or not with 200.
        """
        with urllib.request.urlopen(self.address + path, timeout=30) as response:
            return response.read().decode()


@contextmanager
def served(sources: Sequence[str], *options: str) -> Iterator[ServingProcess]:
    """Start the service, wait until it is ready, and stop it by SIGTERM behind the ``with`` block."""
    command = [sys.executable, "-m", "effnet", "serve", *sources, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        told, found = "", None
        while not found:  # First the service says what computes.
            line = process.stderr.readline()
            if not line:
                raise SystemExit(told)
            told, found = told + line, re.search(r"http://\S+:\d+", line)
        service = ServingProcess(process, found[0])
        for _ in range(600):
            try:
                service.get("/readyz")
                break
            except urllib.error.HTTPError:
                time.sleep(0.1)
        yield service
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
