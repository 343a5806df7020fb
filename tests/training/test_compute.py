"""Which way to compute a training step is the fastest, with made-up clocks and once with real ones."""

import json
import math
import re
import weakref
from dataclasses import dataclass, replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import Config, DataConfig, ModelConfig, ProgressiveConfig, TrainConfig
from effnet.training import compute as compute_module
from effnet.training import timing
from effnet.training import ways as ways_module
from effnet.training.batch_sizes import measure_batch_sizes
from effnet.training.compute import tune_compute
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.tune_run import tune_network, tune_run
from effnet.training.tuned import find_choice
from effnet.training.ways import Choices

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def old_processor(monkeypatch):
    """One without bf16, and without other kernels than plain ones."""
    monkeypatch.setattr(ways_module, "supports_bf16", lambda device: False)
    monkeypatch.setattr(ways_module, "kernels_on", lambda device, spec: ("plain",))


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """Two stages: 35 steps of 80 images at 16 px, then 36 at 32 px."""
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=8, image_size=32, train_size=32
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    return Config(
        model=ModelConfig(network=str(tmp_path / "tiny.json")),
        data=DataConfig(source="digits"),
        progressive=ProgressiveConfig(stages=2, image_size=(16, 32)),
        train=TrainConfig(epochs=4.0, batch_size=80, device="cpu"),
    )


@pytest.fixture
def experiment(config) -> Experiment:
    """What `tune_run` measures: a run in which the ways to compute are left open."""
    prepared = prepare_experiment(config)
    return replace(prepared, config=replace(prepared.config, train=config.train))


@pytest.fixture
def clock(monkeypatch):
    """Steps take 1 ms an image and 32 px in channels_last, twice that in the other format."""
    clock = SimpleNamespace(now=0.0, formats=[], fails=lambda train: False, factor=lambda train: 1.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def step(state, batch, experiment):
        train = experiment.config.train
        if clock.fails(train):
            raise RuntimeError("no compiler\nand more")
        clock.formats.append(train.memory_format)
        seconds = 0.001 * len(batch.labels) * batch.settings.image_size / 32 * clock.factor(train)
        clock.now += seconds if train.memory_format == "channels_last" else 2 * seconds

    monkeypatch.setattr(timing, "train_step", step)
    return clock


def test_the_fastest_way_is_the_one_with_the_shortest_run(experiment, clock):
    tuning = tune_compute(experiment, lambda text: None)
    assert [candidate.compute.memory_format for candidate in tuning.candidates] == [
        "channels_last",
        "contiguous",
    ]
    assert str(tuning.fastest.compute) == "plain channels_last fp32 off"
    small, large = tuning.fastest.stages
    assert small.images_per_second == pytest.approx(2000)
    assert large.images_per_second == pytest.approx(1000)
    assert large.seconds == pytest.approx(36 * 80 * 0.001)
    assert tuning.candidates[1].stages[1].images_per_second == pytest.approx(500)


def test_ratios_are_those_of_the_machine_as_it_was_for_the_fastest(experiment, clock, monkeypatch):
    """In the second turn the machine is three times slower; the other kernels take half of a step."""
    given = Choices(
        kernels=("plain", "triton"),
        memory_formats=("channels_last", "contiguous"),
        precisions=("fp32",),
        modes=("off",),
    )
    monkeypatch.setattr(compute_module, "choices_for", lambda *_, **__: given)
    slow = {"turn": 1.0}
    clock.factor = lambda train: slow["turn"] * (0.5 if train.kernels == "triton" else 1.0)

    def second(choices, seconds):
        slow["turn"] = 3.0
        return ways_module.other_kernels(choices, seconds)

    monkeypatch.setattr(compute_module, "TURNS", (ways_module.arithmetic, second))
    tuning = tune_compute(experiment, lambda text: None)
    assert [str(candidate.compute) for candidate in tuning.candidates] == [
        "plain channels_last fp32 off",
        "plain contiguous fp32 off",
        "triton channels_last fp32 off",
    ]
    assert [candidate.speedup for candidate in tuning.candidates] == pytest.approx([1.0, 0.5, 2.0])
    assert tuning.fastest is tuning.candidates[2]


@pytest.fixture
def first_steps(experiment, clock, monkeypatch):
    """Give a way steps that take 0.9 of the others', behind a first one of 1000 seconds."""
    steps = compute_module._Turns._step

    def measured(**way: str) -> compute_module.ComputeTuning:
        (name, value), started = *way.items(), set[int]()
        default = {"kernels": "plain", "compile": "off"}[name]
        choices = {
            "kernels": ("plain",),
            "memory_formats": ("channels_last",),
            "precisions": ("fp32",),
            "modes": ("off",),
        }
        choices["kernels" if name == "kernels" else "modes"] = (default, value)
        monkeypatch.setattr(compute_module, "choices_for", lambda *_, **__: Choices(**choices))
        clock.factor = lambda train: 0.9 if getattr(train, name) == value else 1.0

        def step(turns, batch) -> float:
            seconds = steps(turns, batch)
            is_first = getattr(turns._experiment.config.train, name) == value and id(turns) not in started
            started.add(id(turns))
            alive.append(turns)
            return seconds + 1000.0 if is_first else seconds

        alive: list[object] = []  # Or another one would get the same id.
        monkeypatch.setattr(compute_module._Turns, "_step", step)
        return tune_compute(experiment, lambda text: None)

    return measured


def test_a_start_that_a_machine_pays_once_does_not_count(first_steps):
    tuning = first_steps(kernels="numba")
    assert [str(candidate.compute) for candidate in tuning.candidates] == [
        "plain channels_last fp32 off",
        "numba channels_last fp32 off",
    ]
    plain, numba = tuning.candidates
    assert tuning.fastest is numba
    assert numba.first_seconds > 2000
    assert numba.speedup == pytest.approx(1 / 0.9)
    assert numba.cost == pytest.approx(0.9)
    assert numba.seconds == numba.step_seconds == pytest.approx(0.9 * plain.step_seconds)


def test_compilation_by_torch_counts_as_every_run_pays_it_and_is_no_part_of_the_ratio(first_steps):
    tuning = first_steps(compile="default")
    plain, compiled = tuning.candidates
    assert tuning.fastest is plain
    assert compiled.speedup == pytest.approx(1 / 0.9)
    assert compiled.seconds == pytest.approx(compiled.step_seconds + compiled.first_seconds)
    assert compiled.cost == pytest.approx(compiled.seconds / plain.step_seconds)
    assert compiled.to_dict()["step_seconds"] == compiled.step_seconds


def test_the_gain_of_the_chosen_precision_is_told(experiment, clock, monkeypatch):
    monkeypatch.setattr(ways_module, "supports_bf16", lambda device: True)
    clock.factor = lambda train: 0.8 if train.precision == "bf16" else 1.0
    tuning = tune_compute(experiment, lambda text: None)
    assert str(tuning.fastest.compute) == "plain channels_last bf16 off"
    assert tuning.precision_gain == pytest.approx(1.25)
    clock.factor = lambda train: 0.95 if train.precision == "bf16" else 1.0
    tuning = tune_compute(experiment, lambda text: None)
    assert str(tuning.fastest.compute) == "plain channels_last fp32 off"
    assert tuning.precision_gain == pytest.approx(0.95)


def test_candidates_take_turns(experiment, clock):
    tune_compute(experiment, lambda text: None)
    last_stage = clock.formats[-2 * compute_module.ROUNDS * compute_module._MOST_STEPS :]
    changes = sum(before != after for before, after in pairwise(last_stage))
    assert changes >= 2 * compute_module.ROUNDS - 2


def test_a_way_that_fails_is_told_and_not_taken(experiment, clock):
    clock.fails = lambda train: train.memory_format == "channels_last"
    tuning = tune_compute(experiment, lambda text: None)
    failed, fine = tuning.candidates
    assert failed.failure == "RuntimeError: no compiler"
    assert failed.seconds == math.inf
    assert tuning.fastest is fine
    assert failed.to_dict()["seconds"] is None


def test_a_way_that_no_longer_fits_beside_the_others_is_told_and_not_taken(experiment, clock):
    clock.fails = lambda train: train.memory_format == "channels_last" and "contiguous" in clock.formats
    tuning = tune_compute(experiment, lambda text: None)
    failed, fine = tuning.candidates
    assert failed.failure == "RuntimeError: no compiler"
    assert failed.stages == ()
    assert tuning.fastest is fine
    assert len(fine.stages) == 2


def test_where_every_way_fails_the_reason_is_told(experiment, clock):
    clock.fails = lambda train: train.memory_format != "auto"
    with pytest.raises(RuntimeError, match="no way to compute a training step works here: RuntimeError: no"):
        tune_compute(experiment, lambda text: None)


@dataclass(frozen=True, weakref_slot=True, slots=True)
class Network:
    train: TrainConfig


class Memory:
    """What a GPU would have allocated: 1000 bytes a network, and 10 an image while a step runs."""

    def __init__(self, monkeypatch) -> None:
        self.networks: list[weakref.ref[Any]] = []
        self.alive_at_start: list[int] = []
        self.peak = 0
        for name, answer in {
            "memory_allocated": lambda device: self.allocated,
            "max_memory_allocated": lambda device: self.peak,
            "reset_peak_memory_stats": lambda device: setattr(self, "peak", self.allocated),
            "empty_cache": lambda: None,
            "current_device": lambda: 0,
            "memory_snapshot": lambda: [
                # Cached memory, and what graphs keep between their replays, here and on another device.
                {"device": 0, "segment_pool_id": (0, 0), "total_size": 9000, "allocated_size": 1},
                {"device": 0, "segment_pool_id": (0, 1), "total_size": 70, "allocated_size": 20},
                {"device": 1, "segment_pool_id": (0, 2), "total_size": 9000, "allocated_size": 1},
            ],
        }.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    @property
    def allocated(self) -> int:
        return 1000 * sum(network() is not None for network in self.networks)

    def network(self, experiment: Experiment) -> Network:
        self.alive_at_start.append(self.allocated)
        state = Network(experiment.config.train)
        self.networks.append(weakref.ref(state))
        return state

    def step(self, experiment, state, batch, *, steps=1) -> tuple[float, ...]:
        is_wide = state.train.memory_format == "contiguous"
        # The first step looks for kernels, which takes more than all others.
        images = 100 * len(batch.labels) if steps == 1 else len(batch.labels)
        self.peak = max(self.peak, self.allocated + (20 if is_wide else 10) * images)
        return (1.0,) * steps


def test_the_memory_of_a_gpu_is_told_of_each_way_alone(experiment, monkeypatch):
    memory = Memory(monkeypatch)
    monkeypatch.setattr(compute_module, "initial_state", memory.network)
    monkeypatch.setattr(compute_module, "set_phase", lambda *_, **__: None)
    monkeypatch.setattr(compute_module, "time_steps", memory.step)
    monkeypatch.setattr(compute_module, "time_step", lambda *given: memory.step(*given)[0])
    monkeypatch.setattr(compute_module, "compute_subject", lambda *_: {})
    monkeypatch.setattr(compute_module, "_SECONDS", 2.0)
    tuning = tune_compute(replace(experiment, device=CUDA), lambda text: None)
    assert memory.alive_at_start == [0] * 8  # Also recorded, beside the fastest that is not.
    told = {
        candidate.compute.memory_format: [stage.memory_bytes for stage in candidate.stages]
        for candidate in tuning.candidates
    }
    assert told == {"channels_last": [1850, 1850], "contiguous": [2650, 2650]}


def test_batches_are_halved_and_the_smallest_fast_one_is_named(experiment, clock):
    speeds = measure_batch_sizes(experiment, tune_compute(experiment, lambda text: None), lambda text: None)
    assert [speed.image_size for speed in speeds] == [16, 32]
    assert list(speeds[1].images_per_second) == [10, 20, 40, 80]
    # A step takes as long as its images, so that all are equally fast.
    assert list(speeds[1].images_per_second.values()) == pytest.approx([1000] * 4)
    assert speeds[1].smallest_fast == 10


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(compute_module, "_SECONDS", 0.001)
    monkeypatch.setattr(compute_module, "_CPU_STEP_SECONDS", 0.02)
    monkeypatch.setattr("effnet.training.tune.SECONDS", 0.01)
    monkeypatch.setattr("effnet.training.tune._CPU_STEP_SECONDS", 0.02)


@pytest.mark.usefixtures("quick")
def test_a_run_is_measured_and_its_choices_are_kept(config):
    said: list[str] = []
    tuning = tune_run(config, compiles=False, keeps=True, report=said.append)
    for text, size in zip(said, (16, 32), strict=False):
        assert re.fullmatch(
            rf"steps at {size} px in 2 ways \(plain channels_last fp32 off, plain contiguous fp32 off\), "
            r"some \d+ s",
            text,
        )
    compute, loader = (json.loads(path.read_text()) for path in tuning.kept)
    assert compute["changes"] == tuning.compute.fastest.compute.changes
    assert set(loader["changes"]) == {"data.workers", "augment.place"}
    resolved = prepare_experiment(config).config
    assert resolved.train.memory_format == compute["changes"]["train.memory_format"]
    assert resolved.augment.place == loader["changes"]["augment.place"]
    document = json.loads(json.dumps(tuning.to_dict()))
    for candidate in document["compute"]["candidates"]:
        for stage in candidate["stages"]:
            low, high = stage["images_per_second_range"]
            assert 0 < low <= stage["images_per_second"] <= high


@pytest.mark.usefixtures("quick")
def test_a_recipe_is_measured_without_its_images(config):
    data = DataConfig(source="hf:anyone/anything", train_images=1000, classes=21, resident=True)
    config = replace(config, data=data)
    tuning = tune_network(config, compiles=False, keeps=False, report=lambda text: None)
    assert tuning.loader is None
    assert tuning.kept == ()
    assert find_choice(tuning.compute.about) is None
    assert sum(stage.settings.steps for stage in tuning.compute.fastest.stages) == 50
