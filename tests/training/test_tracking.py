"""What others are told about a run, each point once, however often the run breaks off."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from effnet.api import resume_run, start_run
from effnet.config import Config, TrackingConfig
from effnet.errors import UserError
from effnet.training import loop, window
from effnet.training.journal import read_metrics
from effnet.training.trackers import TensorBoardTracker
from effnet.training.tracking import points

Points = dict[tuple[str, int], float]


class PowerCutError(BaseException):
    """Nothing expects this."""


@pytest.fixture
def short_run(digits_run, monkeypatch) -> Config:
    """10 steps, each of them in the journal, with a checkpoint at step 6 and at the end."""
    monkeypatch.setattr(window, "REPORT_EVERY_STEPS", 1)
    return replace(digits_run, evaluate=replace(digits_run.evaluate, every_epochs=0.5))


def break_off(monkeypatch, config: Config, path: Path) -> None:
    """Train until the power goes after step 8, two steps behind the checkpoint."""
    real = loop.train_step

    def step(state, batch, experiment):
        if batch.step == 8:
            raise PowerCutError
        return real(state, batch, experiment)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(PowerCutError):
            start_run(config, path, quiet=True)


def journal_points(run: Path) -> Points:
    found = [
        ((name, record["step"]), value)
        for record in read_metrics(run / "metrics.jsonl")
        for name, value in points(record).items()
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def assert_same_but_for_times(told: Points, run: Path) -> None:
    expected = journal_points(run)
    assert len(expected) >= 100
    assert told.keys() == expected.keys()
    times = {"train/seconds", "train/images_per_second", "train/data_wait"}
    for key, value in expected.items():
        if key[0] not in times:
            assert told[key] == pytest.approx(value, rel=1e-6), key


# Which points there are


def test_points_of_a_step_and_of_an_evaluation_do_not_overlap():
    step = {"step": 10, "stage": 0, "loss": 1.5, "seconds": 3.0}
    evaluation = {"step": 10, "stage": 0, "seconds": 4.0, "val_top1": 0.5, "stopped_early": True}
    assert points(step) == {"train/stage": 0, "train/loss": 1.5, "train/seconds": 3.0}
    assert points(evaluation) == {"val/top1": 0.5}


def test_a_record_without_a_result_has_no_points():
    assert points({"step": 10, "processes": 2, "event": "other"}) == {}


# TensorBoard


def events(folder: Path) -> Iterator[event_pb2.Event]:
    """Read event files in the order of their names, as TensorBoard does."""
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def shown(folder: Path) -> Points:
    """Return what TensorBoard shows: the start of a session voids what is behind its step."""
    found: list[tuple[str, int, float]] = []
    for event in events(folder):
        if event.session_log.status == event_pb2.SessionLog.START:
            found = [point for point in found if point[1] < event.step]
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    assert len({point[:2] for point in found}) == len(found)
    return {(tag, step): value for tag, step, value in found}


def test_tensorboard_shows_the_journal_of_a_run_that_broke_off(short_run, tmp_path, monkeypatch):
    run = tmp_path / "run"
    break_off(monkeypatch, short_run, run)
    before = shown(run / "tensorboard")
    assert max(step for _, step in before) == 8
    resume_run(run, quiet=True)
    assert_same_but_for_times(shown(run / "tensorboard"), run)
    files = list((run / "tensorboard").iterdir())
    assert len(files) == 2

    resume_run(run, quiet=True)
    assert list((run / "tensorboard").iterdir()) == files


def test_tensorboard_forgets_what_a_run_goes_back_over(tmp_path):
    tracker = TensorBoardTracker(tmp_path / "tensorboard", 0)
    for step in (1, 2, 3):
        tracker.write(step, {"train/loss": float(step)})
    tracker.rewind(1)
    tracker.write(2, {"train/loss": 7.0})
    tracker.close(is_finished=True)
    assert shown(tmp_path / "tensorboard") == {("train/loss", 1): 1.0, ("train/loss", 2): 7.0}


def test_points_are_on_the_disk_before_the_next_step(tmp_path):
    tracker = TensorBoardTracker(tmp_path / "tensorboard", 0)
    tracker.write(1, {"train/loss": 0.5})
    assert shown(tmp_path / "tensorboard") == {("train/loss", 1): 0.5}
    tracker.close(is_finished=False)


def test_the_journal_drops_and_passes_on_alike(short_run, tmp_path, monkeypatch):
    """As a run does that goes back to a checkpoint by itself."""
    seen: list[tuple[str, int]] = []
    real = loop.train_step

    def step(state, batch, experiment):
        if batch.step == 4 and not seen:
            journal.truncate_after(2)
            seen.append(("rewound", 2))
        return real(state, batch, experiment)

    real_open = loop.open_tracking

    def open_tracking(config, run, *rest, **options):
        nonlocal journal
        journal = run.journal
        return real_open(config, run, *rest, **options)

    journal: Any = None
    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(loop, "open_tracking", open_tracking)
    start_run(short_run, tmp_path / "run", quiet=True)
    told = shown(tmp_path / "run" / "tensorboard")
    assert told.keys() == journal_points(tmp_path / "run").keys()
    assert {step for _, step in told} == {1, 2, 5, 6, 7, 8, 9, 10}


def test_tensorboard_can_be_switched_off(short_run, tmp_path):
    start_run(replace(short_run, tracking=TrackingConfig(tensorboard=False)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "tensorboard").exists()


# Weights & Biases and MLflow, as far as they matter here


@dataclass
class FakeService:
    """Keeps runs between sessions, as a server does."""

    history: dict[str, list[tuple[str, int, float]]] = field(default_factory=dict)
    shown: dict[str, dict[str, Any]] = field(default_factory=dict)
    ends: list[Any] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)
    fails: Callable[[], None] = lambda: None

    def points(self) -> Points:
        (history,) = self.history.values()
        assert len({point[:2] for point in history}) == len(history)
        return {(name, step): value for name, step, value in history}


class FakeWandbRun:
    def __init__(self, service: FakeService, run_id: str) -> None:
        self._service, self._history = service, service.history.setdefault(run_id, [])
        self.step = max((step for _, step, _ in self._history), default=-1) + 1

    def log(self, values: dict[str, float], *, step: int) -> None:
        self._service.fails()
        assert step >= self.step, "the real one would drop it"
        self.step = step
        self._history += [(name, step, value) for name, value in values.items()]

    def finish(self, *, exit_code: int) -> None:
        self._service.ends.append(exit_code)


def fake_wandb(service: FakeService) -> ModuleType:
    def init(*, project, id, name, dir, resume, config, settings):
        service.fails()
        assert resume == "allow"
        service.opened.append((project, id, name))
        service.shown[id] = config
        return FakeWandbRun(service, id)

    module = ModuleType("wandb")
    module.init, module.Settings = init, SimpleNamespace
    return module


def fake_mlflow(service: FakeService) -> ModuleType:
    entities = SimpleNamespace(
        Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step),
        Param=lambda key, value: SimpleNamespace(key=key, value=value),
    )

    class MlflowClient:
        def get_experiment_by_name(self, name):
            service.fails()

        def create_experiment(self, name):
            return f"experiment {name}"

        def create_run(self, experiment_id, *, run_name):
            service.opened.append((experiment_id, run_name))
            run_id = f"run {len(service.history)}"
            service.history[run_id], service.shown[run_id] = [], {}
            return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

        def update_run(self, run_id, *, status):
            service.fails()
            service.ends.append(status)

        def get_run(self, run_id):
            metrics = {name: value for name, _, value in service.history[run_id]}
            return SimpleNamespace(data=SimpleNamespace(metrics=metrics))

        def get_metric_history(self, run_id, key):
            return [SimpleNamespace(step=step) for name, step, _ in service.history[run_id] if name == key]

        def log_batch(self, run_id, *, metrics=(), params=()):
            service.fails()
            assert len(params) <= 100
            service.shown[run_id] |= {param.key: param.value for param in params}
            service.history[run_id] += [(metric.key, metric.step, metric.value) for metric in metrics]

        def set_terminated(self, run_id, status):
            service.ends.append(status)

    module = ModuleType("mlflow")
    module.entities, module.MlflowClient = entities, MlflowClient
    return module


FAKES = {"wandb": fake_wandb, "mlflow": fake_mlflow}


@pytest.fixture(params=FAKES)
def tracker(request) -> str:
    return request.param


@pytest.fixture
def service(tracker, monkeypatch) -> FakeService:
    service = FakeService()
    monkeypatch.setitem(sys.modules, tracker, FAKES[tracker](service))
    return service


@pytest.fixture
def tracked(short_run, tracker, service) -> Config:
    return replace(short_run, tracking=TrackingConfig(tensorboard=False, **{tracker: "flowers"}))


def test_a_service_gets_the_journal_of_a_run_that_broke_off(tracked, tracker, service, tmp_path, monkeypatch):
    run = tmp_path / "run"
    break_off(monkeypatch, tracked, run)
    assert max(step for _, step in service.points()) == 8
    resume_run(run, quiet=True)
    assert_same_but_for_times(service.points(), run)
    (shown,) = service.shown.values()
    if tracker == "wandb":
        assert service.opened[0] == service.opened[1]
        assert service.opened[0][::2] == ("flowers", "run")
        assert shown["train"]["batch_size"] == 160
        assert service.ends == [1, 0]
    else:
        assert service.opened == [("experiment flowers", "run")]
        assert shown["train.batch_size"] == "160"
        assert service.ends == ["KILLED", "RUNNING", "FINISHED"]

    # A finished run is not opened again.
    opened, ends = list(service.opened), list(service.ends)
    resume_run(run, quiet=True)
    assert (service.opened, service.ends) == (opened, ends)


def test_two_runs_are_two_elsewhere(tracked, service, tmp_path):
    config = replace(tracked, train=replace(tracked.train, epochs=0.1))
    for name in ("one", "two"):
        start_run(config, tmp_path / name, quiet=True)
    assert len(service.history) == 2


def fail() -> None:
    raise ConnectionError("no route")


def test_a_service_that_fails_is_left_out_and_said_once(tracked, service, tmp_path, monkeypatch, capsys):
    real = loop.train_step

    def step(state, batch, experiment):
        if batch.step == 4:
            service.fails = fail
        return real(state, batch, experiment)

    monkeypatch.setattr(loop, "train_step", step)
    result = start_run(tracked, tmp_path / "run")
    assert result.steps == 10
    assert max(step for _, step in journal_points(tmp_path / "run")) == 10
    assert max(step for _, step in service.points()) == 4
    assert capsys.readouterr().err.count(" is no longer written, ConnectionError: no route") == 1


def test_a_service_that_cannot_be_opened_stops_a_run_that_begins(tracked, tracker, service, tmp_path):
    service.fails = fail
    message = rf"tracking.{tracker} cannot be opened, ConnectionError: no route; mend it, or leave"
    with pytest.raises(UserError, match=message):
        start_run(tracked, tmp_path / "run", quiet=True)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == []


def test_a_service_that_cannot_be_opened_does_not_stop_a_run_that_continues(
    tracked, service, tmp_path, monkeypatch, capsys
):
    break_off(monkeypatch, tracked, tmp_path / "run")
    service.fails = fail
    assert resume_run(tmp_path / "run").steps == 10
    assert "ConnectionError: no route; the run goes on without it" in capsys.readouterr().err


def test_a_missing_package_is_told_before_anything_is_made(short_run, tracker, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, tracker, None)
    config = replace(short_run, tracking=TrackingConfig(**{tracker: "flowers"}))
    message = rf"tracking.{tracker} is set, but the package is missing .*: pip install 'effnet\[{tracker}\]'"
    with pytest.raises(UserError, match=message):
        start_run(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
