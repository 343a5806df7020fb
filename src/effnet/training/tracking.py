"""What goes into the journal of a run also goes to TensorBoard, Weights & Biases and MLflow.

The journal stays the truth: a tracker gets what is written to it, each point once, and one that fails is left
out from then on without harm to the run.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effnet.config import Config, TrackingConfig
from effnet.errors import UserError
from effnet.files import whole_file
from effnet.training.journal import Run
from effnet.training.trackers import MlflowTracker, TensorBoardTracker, Tracker, WandbTracker, import_extra

TENSORBOARD_FOLDER = "tensorboard"
IDS_FILE = "tracking.json"
"""Under which names the run is known elsewhere."""


class Tracking:
    """All trackers of a run.

    Args:
        trackers: By their names.
        report: Told why a tracker is given up.
    """

    def __init__(self, trackers: Mapping[str, Tracker], report: Callable[[str], None]) -> None:
        self._trackers, self._report = dict(trackers), report

    def write(self, record: Mapping[str, Any]) -> None:
        """Pass on the points of a record of the journal."""
        values = points(record)
        if values:
            self._each(lambda tracker: tracker.write(record["step"], values))

    def rewind(self, step: int) -> None:
        """Pass on that records behind ``step`` are dropped."""
        self._each(lambda tracker: tracker.rewind(step))

    def close(self, *, is_finished: bool) -> None:
        """Close all trackers.

        Args:
            is_finished: Whether nothing went wrong.
        """
        self._each(lambda tracker: tracker.close(is_finished=is_finished))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # Whatever a library of others comes up with, it must not end a run.
                del self._trackers[name]
                self._report(f"{name} is no longer written, {type(error).__name__}: {error}")


def points(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what can be drawn over the steps, as ``train/loss`` or ``val/top1``.

    Args:
        record: Of the journal. What an evaluation repeats of the training is left out.
    """
    numbers = {
        key: float(value)
        for key, value in record.items()
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }
    evaluated = {
        f"val/{key.removeprefix('val_')}": number for key, number in numbers.items() if "val_" in key
    }
    if evaluated or "loss" not in numbers:
        return evaluated
    return {f"train/{key}": number for key, number in numbers.items()}


def check_tracking(config: TrackingConfig) -> None:
    """Make sure that all trackers are installed.

    Raises:
        UserError: One is not; the message says how to install it.
    """
    for name in ("wandb", "mlflow"):
        if getattr(config, name):
            import_extra(name)


@contextmanager
def open_tracking(
    config: Config, run: Run, step: int, report: Callable[[str], None], *, is_writer: bool = True
) -> Iterator[None]:
    """Pass all records of a run's journal on to its trackers for the length of a ``with`` block.

    Args:
        config: Shown beside the metrics; ``tracking`` says what to open.
        run: The run.
        step: Steps done before.
        report: Told why a tracker is given up.
        is_writer: Whether this process writes the journal; the others open nothing.

    Raises:
        UserError: A tracker is not installed, or cannot be opened by a run that begins; one that continues
            goes on without it.
    """
    check_tracking(config.tracking)
    trackers = dict(_open_trackers(config, run, step, report)) if is_writer else {}
    tracking = Tracking(trackers, report)
    run.journal.tracking = tracking
    try:
        yield
    except BaseException:
        tracking.close(is_finished=False)
        raise
    else:
        tracking.close(is_finished=True)
    finally:
        run.journal.tracking = None


def _open_trackers(
    config: Config, run: Run, step: int, report: Callable[[str], None]
) -> Iterator[tuple[str, Tracker]]:
    names, values, ids = config.tracking, asdict(config), _Ids(run.path / IDS_FILE)

    def wandb() -> Tracker:
        # The name must be known before there is a run that a crash could leave without one.
        ids.keep("wandb", ids.get("wandb") or secrets.token_hex(8))
        return WandbTracker(names.wandb, run.path, ids.get("wandb"), values)

    def mlflow() -> Tracker:
        tracker = MlflowTracker(names.mlflow, run.path.name, ids.get("mlflow"), values)
        ids.keep("mlflow", tracker.run_id)
        return tracker

    if names.tensorboard:
        yield "TensorBoard", TensorBoardTracker(run.path / TENSORBOARD_FOLDER, step)
    for name, is_asked_for, open_it in (("wandb", names.wandb, wandb), ("mlflow", names.mlflow, mlflow)):
        if not is_asked_for:
            continue
        try:
            tracker = open_it()
        except Exception as error:  # Whatever a library of others comes up with.
            message = f"tracking.{name} cannot be opened, {type(error).__name__}: {error}"
            if step == 0:
                raise UserError(f"{message}; mend it, or leave tracking.{name} empty") from error
            report(f"{message}; the run goes on without it")
        else:
            yield name, tracker


class _Ids:
    """Under which names the run is known to others, in a file of the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, tracker: str) -> str:
        return self._ids.get(tracker, "")

    def keep(self, tracker: str, name: str) -> None:
        if self.get(tracker) != name:
            self._ids[tracker] = name
            with whole_file(self._path) as temporary:
                temporary.write_text(json.dumps(self._ids) + "\n", encoding="utf-8")
