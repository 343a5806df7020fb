"""Several ``effnet train``, a few at a time: processes that can be continued, and repeated by hand."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from effnet.config import Config
from effnet.data.threads import thread_count
from effnet.errors import UserError
from effnet.files import whole_file, write_json
from effnet.recipes import config_to_toml, load_recipe
from effnet.training.interrupt import listen_for_interruption
from effnet.training.journal import CONFIG_FILE

_EFFNET = (sys.executable, "-m", "effnet")
_POLL_SECONDS = 0.1


class InterruptedRunsError(Exception):
    """Somebody asked to stop; all runs have saved their state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """One run of many, and how it ended."""

    name: str
    """For messages."""
    data: str
    """As ``data.source``."""
    settings: tuple[str, ...]
    """What it sets beside the recipe, as ``--set`` takes it, with its seed."""
    run: Path
    """Its folder."""
    result: dict[str, Any] | None = None
    """Of `effnet.training.loop.RunResult`; None: not finished."""
    failure: str = ""
    """Why it has no result; empty: nobody has tried yet."""

    @property
    def result_path(self) -> Path:
        """Where the result is kept, beside the run."""
        return self.run.with_suffix(".json")

    @property
    def log_path(self) -> Path:
        """What the run printed."""
        return self.run.with_suffix(".log")

    @property
    def is_begun(self) -> bool:
        """Whether there is something to continue."""
        return (self.run / CONFIG_FILE).is_file()

    def with_result(self) -> PlannedRun:
        """Return it with its result, if there is one."""
        if not self.result_path.is_file():
            return self
        return replace(self, result=json.loads(self.result_path.read_text(encoding="utf-8")))

    def command(self, recipe: str, jobs: int) -> list[str]:
        """Return the arguments of ``effnet`` that do it from its beginning, as one of ``jobs`` at a time."""
        settings = (*self.settings, f"data.workers={threads_each(jobs)}")
        changes = [part for setting in settings for part in ("--set", setting)]
        return ["train", self.data, "--recipe", recipe, "--out", str(self.run), *changes]


def threads_each(jobs: int) -> int:
    """Return the share of the processors that each of so many runs has."""
    return max(thread_count(0) // jobs, 1)


@contextmanager
def sole_user(out: Path) -> Iterator[TextIO]:
    """Make and lock a folder of runs, which inherit the lock: those of a parent that was killed hold it, too.

    Raises:
        UserError: Somebody else has locked it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"runs in {out} are still going on; wait for them, or give another --out"
            ) from None
        yield file


def keep_settings(recipe_path: Path, base: Config, settings: dict[str, Any]) -> None:
    """Note what a folder of runs is about, or make sure that it is about the same.

    Args:
        recipe_path: Of what all runs share; the folder is its own.
        base: What all runs share.
        settings: What else must stay as it was, as JSON can hold it; it lies beside, in ``settings.json``.

    Raises:
        UserError: It is about something else.
    """
    settings_path = recipe_path.with_name("settings.json")
    if recipe_path.is_file() and load_recipe(str(recipe_path)) != base:
        raise UserError(_other_settings(recipe_path))
    if settings_path.is_file() and json.loads(settings_path.read_text(encoding="utf-8")) != settings:
        raise UserError(_other_settings(settings_path))
    with whole_file(recipe_path) as temporary:
        temporary.write_text(config_to_toml(base), encoding="utf-8")
    write_json(settings_path, settings)


def _other_settings(path: Path) -> str:
    return (
        f"{path.parent} was begun with other settings, see {path}; give what it was begun with, or another "
        "folder with --out"
    )


def do_runs(
    waiting: Sequence[PlannedRun],
    recipe_path: Path,
    *,
    jobs: int,
    lock: TextIO,
    announce: Callable[[str], None],
) -> Iterator[PlannedRun]:
    """Begin or continue runs, and yield each when it has ended.

    Args:
        waiting: In the order in which they begin.
        recipe_path: What all of them share.
        jobs: Runs at a time; they share the processors evenly.
        lock: Of `sole_user`.
        announce: Told what begins and how it ended.

    Raises:
        InterruptedRunsError: SIGINT or SIGTERM came; all runs have saved their state.
    """
    left, running = list(waiting), list[tuple[PlannedRun, subprocess.Popen[str]]]()
    try:
        with listen_for_interruption() as interruption:
            while running or (left and not interruption.is_requested):
                while left and len(running) < jobs and not interruption.is_requested:
                    planned = left.pop(0)
                    announce(f"{planned.name}: {'continued' if planned.is_begun else 'begun'}")
                    running.append((planned, _start(planned, recipe_path, jobs, lock)))
                if interruption.is_requested:
                    for _, process in running:
                        process.send_signal(signal.SIGINT)
                    for _, process in running:
                        process.wait()
                    break
                time.sleep(_POLL_SECONDS)
                for planned, process in [pair for pair in running if pair[1].poll() is not None]:
                    running.remove((planned, process))
                    yield _ended(planned, process, announce)
            if interruption.is_requested:
                raise InterruptedRunsError(
                    f"stopped; what was trained is saved in {recipe_path.parent}, and the same command "
                    "continues it"
                )
    finally:
        for _, process in running:
            process.kill()
            with process:  # Closes the pipe and waits.
                pass


def _start(planned: PlannedRun, recipe_path: Path, jobs: int, lock: TextIO) -> subprocess.Popen[str]:
    if planned.is_begun:
        arguments = ["train", "--resume", str(planned.run)]
    else:
        arguments = planned.command(str(recipe_path), jobs)
    planned.run.parent.mkdir(exist_ok=True)
    with planned.log_path.open("w", encoding="utf-8") as log:
        log.write(f"effnet {shlex.join(arguments)}\n")
        log.flush()
        return subprocess.Popen(
            [*_EFFNET, *arguments, "--quiet", "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads_each(jobs))},
            pass_fds=[lock.fileno()],
            # Ctrl-C goes to us alone: a run that is asked to stop twice does not save its state.
            start_new_session=True,
        )


def _ended(
    planned: PlannedRun, process: subprocess.Popen[str], announce: Callable[[str], None]
) -> PlannedRun:
    output, _ = process.communicate()
    if process.returncode == 0:
        result = json.loads(output)
        with whole_file(planned.result_path) as temporary:
            temporary.write_text(output, encoding="utf-8")
        announce(f"{planned.name}: top-1 {result['val_top1']:.2%}")
        return replace(planned, result=result)
    lines = planned.log_path.read_text(encoding="utf-8").splitlines()[1:]
    reason = lines[-1].removeprefix("effnet: ") if lines else f"it ended with code {process.returncode}"
    announce(f"{planned.name}: failed: {reason}")
    return replace(planned, failure=reason)
