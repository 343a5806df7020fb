"""How threads are divided between computing and preparing images, with made-up speeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from effnet.api import start_run
from effnet.config import Config
from effnet.training import loop
from effnet.training import thread_tuning as module
from effnet.training import tune_run as tune_run_module
from effnet.training.compute import Candidate, ComputeTuning
from effnet.training.computing_threads import computing_threads
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.same_run import check_same_config
from effnet.training.thread_tuning import ThreadTuning, tune_threads
from effnet.training.tune import JointSpeed, PlaceSpeed, StageSpeed, Tuning
from effnet.training.tune_run import tune_network, tune_run
from effnet.training.tuned import keep_choice, loader_subject
from effnet.training.ways import Compute

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def experiment(digits_run) -> Experiment:
    return prepare_experiment(replace(digits_run, data=replace(digits_run.data, workers=0)))


def loader(experiment: Experiment, workers: int) -> Tuning:
    stages = tuple(
        StageSpeed(
            settings=replace(experiment.schedule.stages[0], image_size=size),
            measured_batch_size=4,
            network=40.0,
            loader={workers: 100.0},
            together=together,
            data_wait=0.0,
        )
        for size, together in ((8, 10.0), (16, 5.0))
    )
    fastest = PlaceSpeed(place="worker", workers=workers, stages=stages)
    return Tuning(places=(fastest,), fastest=fastest, short_sides=())


@pytest.fixture
def speeds(monkeypatch) -> SimpleNamespace:
    """Images a second by the threads that compute and those that prepare images, and in which order asked."""
    seen = SimpleNamespace(asked=[], rates={}, sizes=set())

    def together(run, state, settings, step, workers) -> JointSpeed:
        seen.sizes.add(settings.image_size)
        seen.asked.append((torch.get_num_threads(), workers))
        return JointSpeed(seen.rates.get(seen.asked[-1], 10.0), 0.0)

    monkeypatch.setattr(module, "measure_together", together)
    return seen


def tuned(experiment: Experiment, workers: int = 2) -> ThreadTuning:
    tuning = tune_threads(experiment, loader(experiment, workers), lambda text: None)
    assert tuning is not None
    return tuning


def test_divisions_take_turns_at_the_stage_that_takes_the_longest(experiment, speeds):
    tuned(experiment)
    assert speeds.asked == [(2, 2), (2, 1), (1, 2), (1, 1)] * 3
    assert speeds.sizes == {16}
    assert torch.get_num_threads() == 2


def test_the_division_that_trains_the_fastest_is_taken(experiment, speeds):
    speeds.rates = {(1, 2): 12.0}
    assert tuned(experiment).changes == {"train.threads": 1, "data.workers": 2}
    speeds.rates = {(2, 1): 12.0}
    assert tuned(experiment).changes == {"train.threads": 0, "data.workers": 1}


def test_a_little_faster_is_no_reason(experiment, speeds):
    speeds.rates = {(1, 1): 10.4}
    assert tuned(experiment).changes == {"train.threads": 0, "data.workers": 2}


def test_what_is_fixed_is_not_varied(experiment, speeds):
    config = experiment.config
    fixed = replace(experiment, config=replace(config, data=replace(config.data, workers=3)))
    tuned(fixed)
    assert set(speeds.asked) == {(2, 3), (1, 3)}
    fixed = replace(experiment, config=replace(config, train=replace(config.train, threads=1)))
    assert tune_threads(fixed, loader(fixed, 1), lambda text: None) is None


@pytest.fixture
def measured(monkeypatch) -> list[tuple[int, int, int]]:
    """Torch's threads, the run's threads and its workers at all that is measured, which takes no time."""
    seen: list[tuple[int, int, int]] = []
    way = Compute(kernels="plain", memory_format="channels_last", precision="fp32", compile="off")
    only = Candidate(compute=way, stages=())
    for name, answer in {
        "tune_compute": lambda run: ComputeTuning(
            candidates=(only,), fastest=only, about={"kind": "compute"}
        ),
        "measure_batch_sizes": lambda run: (),
        "tune": lambda run: loader(run, 2),
        "tune_threads": lambda run: None,
    }.items():

        def note(run: Experiment, *_: object, answer=answer, **__: object) -> object:
            seen.append((torch.get_num_threads(), run.config.train.threads, run.config.data.workers))
            return answer(run)

        monkeypatch.setattr(tune_run_module, name, note)
    return seen


def test_what_an_earlier_tuning_kept_is_open_again(digits_run, measured, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path))
    config = replace(digits_run, data=replace(digits_run.data, workers=0))
    about = loader_subject(prepare_experiment(config).config, (8,), CPU)
    keep_choice(about, {"train.threads": 1, "data.workers": 1})
    assert prepare_experiment(config).config.train.threads == 1
    tune_run(config, compiles=False, keeps=False, report=lambda text: None)
    assert measured == [(2, 0, 0)] * 4


def test_all_is_measured_with_the_threads_that_the_configuration_says(digits_run, measured):
    config = replace(digits_run, train=replace(digits_run.train, threads=1))
    tune_run(config, compiles=False, keeps=False, report=lambda text: None)
    unread = replace(config, data=replace(config.data, train_images=160, classes=10))
    tune_network(unread, compiles=False, keeps=False, report=lambda text: None)
    assert [threads for threads, *_ in measured] == [1] * 6
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("device", "own"), [("cuda", 2), ("cpu", 1)])
def test_where_there_is_nothing_to_divide_nothing_is_measured(experiment, speeds, device, own):
    torch.set_num_threads(own)
    elsewhere = replace(experiment, device=torch.device(device))
    assert tune_threads(elsewhere, loader(experiment, 2), lambda text: None) is None
    assert speeds.asked == []


def test_a_real_division_is_measured(experiment):
    tuning = tuned(experiment)
    assert len(tuning.speeds) == 4
    assert all(speed.images_per_second > 0 for speed in tuning.speeds)


def test_threads_are_those_of_a_run_while_it_runs():
    for threads, device, expected in ((1, "cpu", 1), (0, "cpu", 2), (1, "cuda", 2)):
        with computing_threads(threads, torch.device(device)):
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 2


def test_a_run_computes_with_the_threads_that_were_kept(digits_run, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    before = prepare_experiment(digits_run)
    keep_choice(loader_subject(before.config, (8,), CPU), {"train.threads": 1, "data.workers": 1})
    seen = []
    step = loop.train_step
    monkeypatch.setattr(
        loop, "train_step", lambda *given: seen.append(torch.get_num_threads()) or step(*given)
    )
    start_run(digits_run, tmp_path / "run", quiet=True)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


def test_a_run_that_left_its_threads_open_is_the_same_run(digits_run):
    started = replace(digits_run, train=replace(digits_run.train, threads=1))
    check_same_config(digits_run, prepared(started), Path("run"))


def prepared(config: Config) -> Config:
    return prepare_experiment(config).config
