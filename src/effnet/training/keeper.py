"""The checkpoints of a run: written in the background, kept by a policy, found again when the run goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from effnet.config import CheckpointConfig
from effnet.errors import UserError
from effnet.training.checkpoint import DamagedCheckpointError, Snapshot, write_snapshot

_NAME = re.compile(r"step-(\d+)\.safetensors")
_T = TypeVar("_T")


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the state after ``step`` steps is kept."""
    return folder / f"step-{step:08}.safetensors"


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder by their steps, the newest last; none where there is no folder."""
    found = {int(match[1]): path for path in folder.glob("*") if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items()))


def load_newest(folder: Path, load: Callable[[Path], _T], report: Callable[[str], None]) -> _T | None:
    """Load the newest checkpoint that is whole, and put newer ones, which are not, out of the way.

    Args:
        folder: Of the checkpoints.
        load: Loads one, or raises `DamagedCheckpointError`.
        report: Told which ones are damaged, and from where the run goes on instead.

    Returns:
        What ``load`` returns, or nothing where there is no checkpoint.

    Raises:
        UserError: There are checkpoints, and all of them are damaged, or one belongs to another run.
    """
    damaged: dict[Path, str] = {}
    for step, path in reversed(checkpoints_in(folder).items()):
        try:
            loaded = load(path)
        except DamagedCheckpointError as error:
            damaged[path] = error.reason
            continue
        for other, reason in damaged.items():
            aside = other.replace(other.with_name(f"{other.name}.damaged"))
            report(f"{reason}; it is now {aside.name}, and the run continues from step {step}")
        return loaded
    if damaged:
        raise UserError(
            f"{'; '.join(damaged.values())}; no other checkpoint is left: delete "
            f"{'it' if len(damaged) == 1 else 'them'} to begin this run again"
        )
    return None


class Keeper:
    """Writes checkpoints in a thread while the run goes on, and removes those that nobody needs any more.

    Args:
        folder: Of the checkpoints; what a killed process left half written in it is removed.
        config: Which checkpoints to keep.
        stage_ends: Steps at which a stage is over.
        is_writer: Whether this process writes; of several, one does.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, stage_ends: Collection[int], *, is_writer: bool = True
    ) -> None:
        self._folder, self._config, self._stage_ends = folder, config, frozenset(stage_ends)
        self._is_writer = is_writer
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="effnet-checkpoint")
        self._writing: Future[None] | None = None
        for half in folder.glob(".*.partial") if is_writer else ():
            half.unlink(missing_ok=True)

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Take a snapshot and begin to write it, once the one before it is written.

        Args:
            take: Copies the state; called when no other copy is in memory any more.

        Raises:
            OSError: The one before it could not be written; checkpoints before that are intact.
        """
        self.wait()
        snapshot = take()
        if self._is_writer:
            self._writing = self._pool.submit(self._write, snapshot)

    def wait(self) -> None:
        """Wait until all that was saved is on the disk.

        Raises:
            OSError: It could not be written; checkpoints before that are intact.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """End the thread once it has written what it has; whether that succeeded is not told."""
        self._pool.shutdown()

    def _write(self, snapshot: Snapshot) -> None:
        write_snapshot(checkpoint_path(self._folder, snapshot.step), snapshot)
        kept = checkpoints_in(self._folder)
        for step in list(kept)[: -self._config.keep_last]:
            if not (self._config.keep_stage_ends and step in self._stage_ends):
                kept[step].unlink(missing_ok=True)
