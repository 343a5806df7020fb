"""Programs to watch a run with: TensorBoard, Weights & Biases and MLflow, one class each."""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from effnet.errors import UserError

_MOST_PARAMETERS = 100
"""That MLflow takes at once."""


def import_extra(name: str) -> ModuleType:
    """Import the package of a tracker.

    Args:
        name: Of the package, of the extra that brings it, and of the key in ``tracking``.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"tracking.{name} is set, but the package is missing ({error}): pip install 'effnet[{name}]'"
        ) from error


class Tracker(ABC):
    """A place outside the journal where the metrics of a run can be watched."""

    @abstractmethod
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take points at a step; several times for one step, under different names."""

    @abstractmethod
    def rewind(self, step: int) -> None:
        """Be told that what is behind a step will be done once more."""

    @abstractmethod
    def close(self, *, is_finished: bool) -> None:
        """Write what is left.

        Args:
            is_finished: Whether the run came to its end.
        """


class TensorBoardTracker(Tracker):
    """Event files that TensorBoard reads; every point is on the disk when `write` returns.

    Each session of a run has a file. It begins by declaring void what earlier ones have behind the step from
    which it continues, so that TensorBoard shows no point twice.

    Args:
        folder: Made where there is something to write.
        step: Steps done before.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._step = folder, step
        self._writer: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write an event."""
        from tensorboardX.proto import event_pb2, summary_pb2  # noqa: PLC0415 - a third of a second to import

        if self._writer is None:
            self._open()
        points = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._event(event_pb2.Event(step=step, summary=summary_pb2.Summary(value=points)))

    def rewind(self, step: int) -> None:
        """Declare void what was written behind a step."""
        self._step = step
        if self._writer is not None:
            self._declare_void()

    def close(self, *, is_finished: bool) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # noqa: PLC0415 - as above

        self._folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names, which begin with the second.
        self._writer = EventsWriter(str(self._folder / "events"), f".{self._step:09d}")
        self._declare_void()

    def _declare_void(self) -> None:
        from tensorboardX.proto import event_pb2  # noqa: PLC0415 - as above

        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._event(event_pb2.Event(step=self._step + 1, session_log=start))

    def _event(self, event: Any) -> None:  # noqa: ANN401 - made by protobuf, without types
        event.wall_time = time.time()
        self._writer.write_event(event)
        self._writer.flush()


class WandbTracker(Tracker):
    """A run of Weights & Biases, where points cannot be taken back.

    Steps that are done once more, as a continued run does those behind its checkpoint, are left out.

    Args:
        project: Where the run belongs.
        run: Folder of the run; its name is the run's, and the library keeps its files in it.
        run_id: The same for all sessions of the run.
        config: Shown beside the metrics.
    """

    def __init__(self, project: str, run: Path, run_id: str, config: Mapping[str, Any]) -> None:
        wandb = import_extra("wandb")
        self._run = wandb.init(
            project=project,
            id=run_id,
            name=run.name,
            dir=str(run),
            resume="allow",
            config=dict(config),
            settings=wandb.Settings(console="off"),
        )
        self._step: int = self._run.step

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log points."""
        if step >= self._step:
            self._step = step
            self._run.log(dict(values), step=step)

    def rewind(self, step: int) -> None:
        """Leave everything as it is."""

    def close(self, *, is_finished: bool) -> None:
        """Send what is left."""
        self._run.finish(exit_code=0 if is_finished else 1)


class MlflowTracker(Tracker):
    """A run of MLflow, at the address in ``MLFLOW_TRACKING_URI`` or where the library keeps runs otherwise.

    As in `WandbTracker`, points cannot be taken back.

    Args:
        experiment: Where the run belongs; made where there is none.
        name: Of the run.
        run_id: Of an earlier session; empty: a new one is made.
        config: Its single values are the run's parameters.
    """

    def __init__(self, experiment: str, name: str, run_id: str, config: Mapping[str, Any]) -> None:
        mlflow = import_extra("mlflow")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient()
        self._steps: dict[str, int] = {}
        self.run_id: str = run_id
        """The run's name at MLflow."""
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
            for key in self._client.get_run(run_id).data.metrics:
                history = self._client.get_metric_history(run_id, key)
                self._steps[key] = max(point.step for point in history)
        else:
            known = self._client.get_experiment_by_name(experiment)
            home = known.experiment_id if known else self._client.create_experiment(experiment)
            self.run_id = self._client.create_run(home, run_name=name).info.run_id
            params = [mlflow.entities.Param(key, str(value)) for key, value in _flat(config)]
            for start in range(0, len(params), _MOST_PARAMETERS):
                self._client.log_batch(self.run_id, params=params[start : start + _MOST_PARAMETERS])

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log points."""
        new = {key: value for key, value in values.items() if step > self._steps.get(key, -1)}
        self._steps |= dict.fromkeys(new, step)
        now = round(time.time() * 1000)
        metrics = [self._metric(key, value, now, step) for key, value in new.items()]
        if metrics:
            self._client.log_batch(self.run_id, metrics=metrics)

    def rewind(self, step: int) -> None:
        """Leave everything as it is."""

    def close(self, *, is_finished: bool) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self.run_id, "FINISHED" if is_finished else "KILLED")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
