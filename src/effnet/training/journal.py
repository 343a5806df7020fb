"""The folder of a run: its configuration, where it ran, and its metrics, one JSON object a line.

Lines are appended whole; a line that lost its end when a run was killed does not count.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from effnet.errors import UserError, did_you_mean
from effnet.files import whole_file, write_json

CONFIG_FILE = "config.toml"


@runtime_checkable
class Follower(Protocol):
    """Who is told what is written; see `effnet.training.tracking`."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Be told a record."""

    def rewind(self, step: int) -> None:
        """Be told that all records of later steps are dropped."""


class Journal:
    """A file of JSON objects, one a line, to which several threads may append.

    Args:
        path: The file; made by the first record.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_whole = False
        self.tracking: Follower | None = None
        """Who is told each record once it is written."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record.

        Args:
            record: What JSON can hold; a number that is not finite becomes null.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        line = _line(record)
        with self._lock:
            if not self._is_whole:
                _cut_partial_line(self._path)
                self._is_whole = True
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        if self.tracking:
            self.tracking.write(record)

    def read(self) -> list[dict[str, Any]]:
        """Return all whole records; none where there is no file yet.

        Raises:
            UserError: A line is no JSON object.
        """
        return read_metrics(self._path) if self._path.is_file() else []

    def truncate_after(self, step: int) -> None:
        """Drop all records of later steps, so that a continued run reads as one.

        Args:
            step: Of the checkpoint from which the run continues.
        """
        kept = [record for record in self.read() if record.get("step", 0) <= step]
        with whole_file(self._path) as temporary:
            temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
        if self.tracking:
            self.tracking.rewind(step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the records of a run, also while it is being written.

    Args:
        path: ``metrics.jsonl`` of a run.

    Raises:
        UserError: The file is not there, or a line in it is no JSON object.
    """
    if not path.is_file():
        raise UserError(f"there is no file of metrics {path}")
    *lines, _partial = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise UserError(f"line {number} of {path} is no JSON object; remove it to go on")
        records.append(record)
    return records


def _line(record: Mapping[str, Any]) -> str:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def _cut_partial_line(path: Path) -> None:
    if path.is_file():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


class Run:
    """The folder of a run and what is in it.

    Args:
        path: Of `create_run` or `open_run`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_path = path / CONFIG_FILE
        """The complete configuration; its presence makes a folder a run."""
        self.environment_path = path / "environment.json"
        """Where the run was started, see `environment`."""
        self.split_path = path / "split.json"
        """Which images were held out."""
        self.metrics_path = path / "metrics.jsonl"
        self.journal = Journal(self.metrics_path)
        """Metrics of steps and evaluations."""
        self.checkpoints = path / "checkpoints"
        """The states from which the run can continue, see `effnet.training.keeper`."""
        self.best_weights = self.checkpoints / "best.safetensors"
        """The weights with the best validation accuracy."""
        self.plots = path / "plots"
        self.split_path = path / "split.json"
        """Which images are held out, see `effnet.training.split`."""
        self._bad_images = Journal(path / "bad-images.jsonl")
        self._bad_names = {record.get("name") for record in self._bad_images.read()}
        self._lock = threading.Lock()

    @property
    def bad_image_count(self) -> int:
        """Number of different images that could not be read, over all sessions of the run."""
        return len(self._bad_names)

    def report_bad_image(self, name: str, reason: str) -> bool:
        """Note in ``bad-images.jsonl`` that an image cannot be read; each is noted once a run.

        Returns:
            Whether it is the first time.
        """
        with self._lock:
            is_new = name not in self._bad_names
            self._bad_names.add(name)
        if is_new:
            self._bad_images.write({"name": name, "reason": reason})
        return is_new


def default_run_path(model_name: str) -> Path:
    """Return ``runs/<date>-<time>-<model>`` for a run that starts now.

    Args:
        model_name: A network's name, or the path of a spec, of which the file's name is used.
    """
    stem = Path(model_name).name.removesuffix(".json")
    return Path("runs") / f"{datetime.now():%Y-%m-%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9._-]+', '-', stem)}"


def create_run(path: Path, config_toml: str) -> Run:
    """Make the folder of a new run.

    Args:
        path: Made with its parents; it may exist as long as it holds no run.
        config_toml: The complete configuration.

    Raises:
        UserError: The folder already holds a run, or is a file.
    """
    if holds_run(path):
        raise UserError(
            f"{path} already holds a run: continue it with `effnet train --resume {shlex.quote(str(path))}`, "
            "choose another folder with --out, or remove it"
        )
    run = Run(path)
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except NotADirectoryError as error:
        raise UserError(f"{path} lies in what is no folder; choose another one with --out") from error
    except FileExistsError as error:
        raise UserError(f"{path} is no folder; choose another one with --out") from error
    run.checkpoints.mkdir(exist_ok=True)
    run.plots.mkdir(exist_ok=True)
    write_json(run.environment_path, environment())
    run.metrics_path.touch()
    # The last of all: a folder is a run once it has everything.
    with whole_file(run.config_path) as temporary:
        temporary.write_text(config_toml, encoding="utf-8")
    return run


def holds_run(path: Path) -> bool:
    """Whether there is a run in a folder."""
    return (path / CONFIG_FILE).is_file()


def open_run(path: Path) -> Run:
    """Return the run in a folder.

    Raises:
        UserError: The folder holds no run; the message names runs that are inside it or beside it.
    """
    if holds_run(path):
        return Run(path)
    message = f"{path} holds no run (it has no {CONFIG_FILE})"
    inside, beside = _runs_in(path), _runs_in(path.parent)
    if inside:
        raise UserError(f"{message}; it contains the runs {', '.join(inside)}")
    raise UserError(message + did_you_mean(path.name, beside))


def _runs_in(folder: Path) -> list[str]:
    return sorted(config.parent.name for config in folder.glob(f"*/{CONFIG_FILE}"))


def environment() -> dict[str, Any]:
    """Describe what results depend on: versions, processors, devices, commit, command line, time."""
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "effnet": installed_version("effnet"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": installed_version("numba"),
        "platform": platform.platform(),
        "cpu_model": cpu_model(),
        "cpu_count": os.cpu_count(),
        "devices": devices,
        "git_commit": _git_commit(),
        "command": sys.argv,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def installed_version(package: str) -> str | None:
    """Return the version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_model() -> str:
    """Return the name of this machine's processor."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
