"""The loop on coloured squares: three stages of 24 steps, each of them over in a blink."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from effnet.api import resume_run, start_run
from effnet.arch import IMAGENET_MEAN, NetworkSpec, StageSpec, spec_to_json
from effnet.config import (
    AugmentConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EmaConfig,
    EvaluateConfig,
    LearningRateConfig,
    ModelConfig,
    OptimizerConfig,
    ProgressiveConfig,
    TrainConfig,
)
from effnet.data.loader import eval_batches, prepare_images, train_batches
from effnet.errors import UserError
from effnet.evaluation.evaluator import evaluate_model
from effnet.nn import build_model
from effnet.recipes import config_to_toml
from effnet.schedule.progressive import StageSchedule, StageSettings
from effnet.training import loop, stopwatch
from effnet.training import step as step_module
from effnet.training.checkpoint import Snapshot, take_snapshot
from effnet.training.experiment import prepare_experiment
from effnet.training.guard import DivergedRunError
from effnet.training.journal import read_metrics
from effnet.training.keeper import checkpoints_in
from effnet.training.loop import InterruptedRunError, RunResult
from effnet.training.validation import is_evaluation_step
from effnet.weights import load_weights, save_weights

COLORS = {"blue": (20, 40, 220), "green": (30, 210, 40), "red": (220, 30, 30)}
TIMES = {"seconds", "step_seconds", "wait_seconds", "images_per_second", "data_wait"}
NETWORK = NetworkSpec(
    name="tiny",
    stages=(
        StageSpec(operation="fused_mbconv", kernel_size=3, stride=1, expand_ratio=1, channels=8, repeats=2),
        StageSpec(
            operation="mbconv",
            kernel_size=3,
            stride=2,
            expand_ratio=4,
            channels=12,
            repeats=2,
            se_ratio=0.25,
        ),
    ),
    stem_channels=8,
    head_channels=24,
    image_size=16,
    train_size=16,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Ten noisy squares of each colour, JPEG and PNG."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir()
        for index in range(10):
            pixels = np.clip(np.array(color) + rng.normal(0, 25, (24, 20 + index, 3)), 0, 255)
            ending = "png" if index % 2 else "jpg"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.{ending}")
    return folder


@pytest.fixture(scope="module")
def config(photos, tmp_path_factory) -> Config:
    """72 steps of 7 images at 8, 12 and 16 px; batches cross the borders of the epochs."""
    network = tmp_path_factory.mktemp("network") / "tiny.json"
    network.write_text(spec_to_json(NETWORK))
    return Config(
        model=ModelConfig(network=str(network)),
        data=DataConfig(source=str(photos), crop_area=(0.5, 1.0), workers=2),
        augment=AugmentConfig(operations=1, policy="relative"),
        progressive=ProgressiveConfig(
            stages=3,
            image_size=(8, 16),
            randaugment_magnitude=(0.0, 2.0),
            mixup_alpha=(0.0, 0.2),
            cutmix_alpha=(0.1, 0.3),
            dropout_rate=(0.0, 0.2),
            drop_path_rate=(0.1, 0.3),
        ),
        train=TrainConfig(epochs=21.0, batch_size=7),
        optimizer=OptimizerConfig(name="adamw", epsilon=1e-8),
        learning_rate=LearningRateConfig(base=0.01, base_batch_size=7, schedule="cosine", warmup_epochs=1.0),
        ema=EmaConfig(decay=0.9),
        evaluate=EvaluateConfig(every_epochs=4.0, batch_size=4),
    )


@pytest.fixture(autouse=True)
def no_plots(whole, monkeypatch) -> None:
    """Only the run that all are compared with draws its plots, which takes as long as to train."""
    monkeypatch.setattr(loop, "plot_schedule", lambda *_: None)
    monkeypatch.setattr(loop, "plot_learning_curve", lambda *_: None)


@dataclass(frozen=True)
class Seen:
    """What the network was like when a batch came."""

    step: int
    settings: StageSettings
    image_shape: tuple[int, ...]
    dropout: float
    drop_path: list[float]
    is_training: bool


@dataclass(frozen=True)
class Done:
    path: Path
    result: RunResult
    seen: list[Seen]


def before_each_step(monkeypatch, call: Callable[..., None]) -> None:
    real = loop.train_step

    def step(state, batch, experiment) -> Tensor:
        call(state, batch)
        return real(state, batch, experiment)

    monkeypatch.setattr(loop, "train_step", step)


def interrupt(*_: Any) -> None:
    signal.raise_signal(signal.SIGTERM)


@contextmanager
def stopped_in(monkeypatch, step: int, how: Callable[..., None] = interrupt) -> Iterator[None]:
    """Let something happen before one step."""

    def call(state, batch) -> None:
        if batch.step == step:
            how(state, batch)

    with monkeypatch.context() as patch:
        before_each_step(patch, call)
        yield


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Done:
    """The run that nobody disturbs."""
    seen = []

    def look(state, batch) -> None:
        seen.append(
            Seen(
                step=batch.step,
                settings=batch.settings,
                image_shape=tuple(batch.images.shape),
                dropout=float(state.model.dropout.rate),
                drop_path=[
                    float(block.drop_path.rate)
                    for stage in state.model.stages
                    for block in stage
                    if block.drop_path is not None
                ],
                is_training=all(module.training for module in state.model.modules()),
            )
        )

    path = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        before_each_step(monkeypatch, look)
        result = start_run(config, path, quiet=True)
    return Done(path, result, seen)


def checkpoint(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all tensors of the last checkpoint, and what else it says but for times."""
    newest = list(checkpoints_in(run / "checkpoints").values())[-1]
    with safe_open(newest, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["effnet"])
    del metadata["sha256"]  # of the times as well
    metadata["extra"] = {key: value for key, value in metadata["extra"].items() if key not in TIMES}
    return tensors, metadata


def metrics(run: Path) -> list[dict[str, Any]]:
    records = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def assert_same_end(run: Path, other: Path) -> None:
    tensors, metadata = checkpoint(run)
    expected_tensors, expected_metadata = checkpoint(other)
    assert metadata == expected_metadata
    assert tensors.keys() == expected_tensors.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, expected_tensors[name])] == []
    best = [load_weights(str(path / "checkpoints" / "best.safetensors")).state for path in (run, other)]
    assert all(torch.equal(tensor, best[1][name]) for name, tensor in best[0].items())


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [record for record in metrics(run) if "val_top1" in record]


# The whole run


def test_a_run_learns_its_classes(whole):
    assert whole.result.val_top1 > 0.9
    assert whole.result.best_val_top1 >= whole.result.val_top1
    assert whole.result.steps == 72
    assert whole.result.bad_images == 0
    assert whole.result.train_seconds > 0


def test_a_run_leaves_its_complete_account(whole):
    files = {
        re.sub(r"(?<=events).*", "", str(file.relative_to(whole.path)))
        for file in whole.path.rglob("*")
        if file.is_file()
    }
    assert files == {
        "checkpoints/best.safetensors",
        "checkpoints/step-00000024.safetensors",
        "checkpoints/step-00000048.safetensors",
        "checkpoints/step-00000069.safetensors",
        "checkpoints/step-00000072.safetensors",
        "config.toml",
        "environment.json",
        "metrics.jsonl",
        "plots/learning-curve.png",
        "plots/schedule.png",
        "split.json",
        "tensorboard/events",
    }


def test_every_batch_has_the_settings_of_its_stage_and_so_has_the_network(whole, config):
    schedule = prepare_experiment(config).schedule
    assert [seen.step for seen in whole.seen] == list(range(72))
    assert {seen.settings.image_size for seen in whole.seen} == {8, 12, 16}
    for seen in whole.seen:
        settings = schedule.at(seen.step)
        assert seen.settings == settings
        assert seen.image_shape == (7, settings.image_size, settings.image_size, 3)
        assert seen.dropout == pytest.approx(settings.dropout_rate)
        # Block i of 4 is dropped at rate * i / 4; block 2 has no shortcut.
        assert seen.drop_path == pytest.approx([settings.drop_path_rate * i / 4 for i in (0, 1, 3)])
        assert seen.is_training


def test_the_journal_has_every_tenth_step_and_every_evaluation(whole):
    records = metrics(whole.path)
    evaluated = [record["step"] for record in records if "val_top1" in record]
    # Every 4 epochs of 24 images in steps of 7, and where a stage ends.
    assert evaluated == [14, 24, 28, 42, 48, 55, 69, 72]
    windows = [record["step"] for record in records if "loss" in record]
    assert windows == sorted({*range(10, 71, 10), *evaluated})
    assert [record["step"] for record in records] == sorted(windows + evaluated)


def test_what_the_journal_says_last_is_the_result(whole):
    last, stages = metrics(whole.path)[-1], metrics(whole.path)
    assert last["val_top1"] == whole.result.val_top1
    assert max(record.get("val_top1", 0) for record in stages) == whole.result.best_val_top1
    assert last["epoch"] == pytest.approx(21.0)
    assert (last["stage"], last["image_size"], last["val_image_size"]) == (2, 16, 16)


def test_the_best_weights_are_the_average_that_was_evaluated(whole, config):
    weights = load_weights(str(whole.path / "checkpoints" / "best.safetensors"))
    assert weights.class_names == tuple(COLORS)
    experiment = prepare_experiment(config)
    model = build_model(weights.spec, weights=weights)
    scores = evaluate_model(
        model, experiment.data.val, weights.preprocessing, device=torch.device("cpu"), batch_size=4
    )
    best = next(r for r in metrics(whole.path) if r["step"] == whole.result.best_step and "val_top1" in r)
    assert scores.top1 == best["val_top1"]
    assert scores.loss == pytest.approx(best["val_loss"], rel=1e-5)


def test_what_is_evaluated_and_kept_is_the_average(config, tmp_path):
    single = replace(config.progressive, stages=1)
    once = replace(config, progressive=single, train=replace(config.train, epochs=2.0))
    start_run(once, tmp_path / "run", quiet=True)
    tensors, metadata = checkpoint(tmp_path / "run")
    assert [record["step"] for record in evaluations(tmp_path / "run")] == [metadata["step"]]
    kept = load_weights(str(tmp_path / "run" / "checkpoints" / "best.safetensors")).state
    assert all(torch.equal(tensor, tensors[f"ema/{name}"]) for name, tensor in kept.items())
    assert not torch.equal(kept["classifier.bias"], tensors["model/classifier.bias"])


def test_no_two_steps_mix_or_drop_alike(config, tmp_path, monkeypatch):
    seeds, real = [], step_module.mix_batch

    def mix(*arguments: Any, seed: int) -> tuple[Tensor, Tensor]:
        assert torch.initial_seed() == seed  # of dropout and drop-path
        seeds.append(seed)
        return real(*arguments, seed=seed)

    monkeypatch.setattr(step_module, "mix_batch", mix)
    for seed in (0, 1):
        train = replace(config.train, epochs=2.0, seed=seed)
        start_run(replace(config, train=train), tmp_path / str(seed), quiet=True)
    assert len(seeds) == len(set(seeds)) == 12


def test_the_last_checkpoint_holds_raw_weights_beside_their_average(whole):
    tensors, metadata = checkpoint(whole.path)
    names = [name.removeprefix("model/") for name in tensors if name.startswith("model/")]
    assert metadata["step"] == 72
    assert names
    assert not all(torch.equal(tensors[f"model/{name}"], tensors[f"ema/{name}"]) for name in names)


def test_the_split_is_the_data(whole, config):
    split = json.loads((whole.path / "split.json").read_text())
    held_out = split["val"]["names"]
    assert (split["train"]["images"], split["val"]["images"], len(held_out)) == (24, 6, 6)
    assert all((Path(config.data.source) / name).is_file() for name in held_out)
    assert {name.split("/")[0] for name in held_out} == set(COLORS)


def test_class_accuracy_is_what_each_class_gets_alone(whole, config):
    weights = load_weights(str(whole.path / "checkpoints" / "best.safetensors"))
    images = prepare_experiment(config).data.train
    model = build_model(weights.spec, weights=weights).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        model.classifier.weight.add_(torch.randn(model.classifier.weight.shape))  # so that it errs
    scores = evaluate_model(
        model, images, weights.preprocessing, device=torch.device("cpu"), batch_size=5, workers=2
    )
    right: dict[str, list[bool]] = {name: [] for name in COLORS}
    for batch in eval_batches(images, weights.preprocessing, batch_size=1):
        with torch.no_grad():
            logits = model(prepare_images(batch.images, weights.preprocessing, torch.device("cpu")))
        label = int(batch.labels[0])
        right[images.class_names[label]].append(int(logits.argmax()) == label)
    expected = {name: np.mean(answers) for name, answers in right.items()}
    assert 0 < scores.top1 < 1
    assert scores.class_top1 == pytest.approx(expected)
    assert scores.top1 == pytest.approx(np.mean([x for answers in right.values() for x in answers]))


# Where images are augmented


def test_a_step_trains_on_the_same_views_wherever_they_are_made(config):
    pixels = []
    for place in ("worker", "device"):
        experiment = prepare_experiment(replace(config, augment=AugmentConfig(operations=3, place=place)))
        settings = replace(experiment.schedule.stages[0], randaugment_magnitude=9.0, start_step=0, end_step=2)
        schedule = StageSchedule((settings,), 24, 7)
        batches = train_batches(
            experiment.data.train, schedule, config.data, experiment.config.augment, seed=1
        )
        state = step_module.initial_state(experiment)
        step_module.set_phase(state, experiment, settings, is_head_only=False)
        state.model.register_forward_pre_hook(lambda _, inputs: pixels.append(inputs[0].clone()))
        for batch in batches:
            step_module.train_step(state, batch, experiment)
    for ours, theirs in zip(pixels[:2], pixels[2:], strict=True):
        # A rotation may look up a neighbour, see test_device_augment.py.
        assert (ours != theirs).float().mean() < 0.01
        assert ours.std() > 0


def test_resume_equals_uninterrupted_where_the_device_augments(config, tmp_path, monkeypatch):
    device = replace(
        config,
        augment=AugmentConfig(operations=2, policy="relative", place="device"),
        train=replace(config.train, epochs=6.0),
    )
    start_run(device, tmp_path / "whole", quiet=True)
    with stopped_in(monkeypatch, 8), pytest.raises(InterruptedRunError):
        start_run(device, tmp_path / "run", quiet=True)
    resume_run(tmp_path / "run", quiet=True)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


# Waiting for images


def test_the_result_tells_the_share_of_waiting_over_all_sessions(config, tmp_path, monkeypatch):
    now = 0.0

    def later(seconds: float) -> None:
        nonlocal now
        now += seconds

    def slow_batches(*arguments: Any, **options: Any) -> Iterator[Any]:
        for batch in real_batches(*arguments, **options):
            later(3.0)
            yield batch

    real_batches = loop.run_batches
    monkeypatch.setattr(loop, "run_batches", slow_batches)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: now))
    before_each_step(monkeypatch, lambda state, batch: later(1.0))
    monkeypatch.setattr(loop, "evaluate_run", lambda *_: later(100.0))
    short = replace(config, train=replace(config.train, epochs=6.0))
    with stopped_in(monkeypatch, 3), pytest.raises(InterruptedRunError):
        start_run(short, tmp_path / "run", quiet=True)
    result = resume_run(tmp_path / "run", quiet=True)
    assert result.data_wait == 0.75
    windows = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "data_wait" in r]
    assert {record["data_wait"] for record in windows} == {0.75}


# Interruption and resumption


# Before the first evaluation; on a stage's end; inside stage 2, between two records and on one; at the end.
@pytest.mark.parametrize("steps", [[7, 33, 71], [24, 40]])
def test_resume_equals_uninterrupted(steps, whole, config, tmp_path, monkeypatch):
    run = tmp_path / "run"
    for step in steps:
        with (
            stopped_in(monkeypatch, step - 1),
            pytest.raises(InterruptedRunError, match=f"step {step} of 72"),
        ):
            resume_run(run, quiet=True) if run.exists() else start_run(config, run, quiet=True)
        assert checkpoint(run)[1]["step"] == step
    result = resume_run(run, quiet=True)
    assert_same_end(run, whole.path)
    assert evaluations(run) == evaluations(whole.path)
    same = {"run": "", "train_seconds": 0.0, "step_seconds": 0.0, "data_wait": 0.0}
    assert replace(result, **same) == replace(whole.result, **same)


def test_an_interruption_leaves_no_trace_in_the_metrics(config, tmp_path, monkeypatch):
    short = replace(config, train=replace(config.train, epochs=6.0))
    start_run(short, tmp_path / "whole", quiet=True)
    with stopped_in(monkeypatch, 3), pytest.raises(InterruptedRunError):
        start_run(short, tmp_path / "run", quiet=True)
    resume_run(tmp_path / "run", quiet=True)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


class PowerCutError(BaseException):
    """Nothing in the loop expects this."""


def test_a_crash_costs_no_more_than_the_steps_since_the_checkpoint(whole, config, tmp_path, monkeypatch):
    def crash(*_: Any) -> None:
        raise PowerCutError

    run = tmp_path / "run"
    with stopped_in(monkeypatch, 5, crash), pytest.raises(PowerCutError):
        start_run(config, run, quiet=True)
    assert list(checkpoints_in(run / "checkpoints")) == [0]
    for step in (19, 53):
        with stopped_in(monkeypatch, step, crash), pytest.raises(PowerCutError):
            resume_run(run, quiet=True)
    resume_run(run, quiet=True)
    assert_same_end(run, whole.path)
    assert metrics(run) == metrics(whole.path)


KILLED_WHILE_SAVING = """
import os, signal, sys
from effnet.cli.main import main
from effnet.weights import storage

real = storage.save_file
def save_file(tensors, path, metadata):
    real(tensors, path, metadata=metadata)
    if "step-00000042" in path.name:
        with open(path, "rb+") as file:
            file.truncate(1000)
        os.kill(os.getpid(), signal.SIGKILL)
storage.save_file = save_file
main()
"""


def command_line(code: str, *arguments: str | Path) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return command, os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}


def test_a_run_killed_while_it_saves_inside_stage_2_resumes(whole, config, tmp_path, monkeypatch):
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(config_to_toml(config))
    command, environment = command_line(
        KILLED_WHILE_SAVING, "train", config.data.source, "--recipe", recipe, "--out", run, "--quiet"
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(run.glob("checkpoints/.*.partial"))
    before = checkpoint(run)[1]["step"]
    assert before == 28

    result = resume_run(run, quiet=True)
    assert_same_end(run, whole.path)
    assert metrics(run) == metrics(whole.path)
    assert result.val_top1 == whole.result.val_top1
    assert not list(run.glob("checkpoints/.*"))


STOPPED_BY_THE_USER = """
import os, signal
from effnet.cli.main import main
from effnet.training import loop
from effnet.training import step as step_module

real = loop.train_step
def step(state, batch, experiment):
    if batch.step == 36:
        os.kill(os.getpid(), signal.SIGINT)
    return real(state, batch, experiment)
loop.train_step = step
main()
"""


def test_ctrl_c_saves_the_run_and_says_how_to_go_on(whole, config, tmp_path):
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(config_to_toml(config))
    command, environment = command_line(
        STOPPED_BY_THE_USER, "train", config.data.source, "--recipe", recipe, "--out", run, "--json"
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert f"step 37 of 72; continue with: effnet train --resume {run}" in done.stderr.splitlines()[-1]

    resume_run(run, quiet=True)
    assert_same_end(run, whole.path)


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_checkpoint(whole, config, tmp_path, monkeypatch):
    def interrupt_twice(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with stopped_in(monkeypatch, 35, interrupt_twice), pytest.raises(KeyboardInterrupt):
        start_run(config, tmp_path / "run", quiet=True)
    assert signal.getsignal(signal.SIGINT) is handler
    assert checkpoint(tmp_path / "run")[1]["step"] == 28
    resume_run(tmp_path / "run", quiet=True)
    assert_same_end(tmp_path / "run", whole.path)
    assert metrics(tmp_path / "run") == metrics(whole.path)


def test_a_run_with_time_between_evaluations_saves_in_between(config, tmp_path, monkeypatch):
    saved = []

    def take(*, step: int, **rest: Any) -> Snapshot:
        saved.append(step)
        return take_snapshot(step=step, **rest)

    monkeypatch.setattr(loop, "take_snapshot", take)
    hurried = replace(config, checkpoint=CheckpointConfig(every_minutes=1e-9))
    start_run(hurried, tmp_path / "run", quiet=True)
    assert saved == sorted({0, *range(10, 71, 10), 14, 24, 28, 42, 48, 55, 69, 72})


def test_a_finished_run_is_not_changed_by_resuming_it(config, tmp_path):
    short = replace(config, train=replace(config.train, epochs=1.0))
    first = start_run(short, tmp_path / "run", quiet=True)
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*.[sj]*") if file.is_file()}
    again = resume_run(tmp_path / "run", quiet=True)
    assert again == first
    assert {file: file.read_bytes() for file in before} == before


def test_changed_data_is_told_before_anything_is_done(config, photos, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(photos, copy)
    moved = replace(config, data=replace(config.data, source=str(copy)))

    with stopped_in(monkeypatch, 3), pytest.raises(InterruptedRunError):
        start_run(moved, tmp_path / "run", quiet=True)
    (copy / "red" / "0.jpg").unlink()
    saved = list(checkpoints_in(tmp_path / "run" / "checkpoints").values())
    before = [path.read_bytes() for path in saved]
    with pytest.raises(UserError, match="data is not what this run began with"):
        resume_run(tmp_path / "run", quiet=True)
    assert len(before) == 2
    assert [path.read_bytes() for path in saved] == before


# Fine-tuning


@pytest.fixture(scope="module")
def pretrained(whole, tmp_path_factory) -> Path:
    """Weights whose conventions are neither the network's nor the configuration's."""
    weights = load_weights(str(whole.path / "checkpoints" / "best.safetensors"))
    path = tmp_path_factory.mktemp("pretrained") / "weights.safetensors"
    save_weights(
        path,
        weights.state,
        replace(weights.spec, padding="symmetric", norm_epsilon=1e-5, num_classes=3),
        class_names=("blue", "green", "violet"),
        preprocessing=replace(weights.preprocessing, mean=IMAGENET_MEAN, crop_fraction=0.9),
        provenance="test",
    )
    return path


@pytest.fixture(scope="module")
def finetune(config, pretrained) -> Config:
    """24 steps, the first 7 of them for the classifier alone."""
    return replace(
        config,
        model=replace(config.model, weights=str(pretrained)),
        train=replace(config.train, epochs=7.0, head_epochs=2.0, backbone_rate=0.5),
    )


def test_the_head_phase_leaves_the_backbone_as_it_was_loaded(finetune, pretrained, tmp_path, monkeypatch):
    loaded = load_weights(str(pretrained)).state
    backbone = [name for name in loaded if not name.startswith("classifier.")]
    changed = {}

    def look(state, batch) -> None:
        now = state.model.state_dict()
        same = all(torch.equal(now[name], loaded[name]) for name in backbone)
        classifier = torch.equal(now["classifier.weight"][0], loaded["classifier.weight"][0])
        changed[batch.step] = (not same, not classifier)

    before_each_step(monkeypatch, look)
    start_run(finetune, tmp_path / "run", quiet=True)
    # The rate of step 0 is 0; steps of 7 from 24 images: step 7 is the first behind 2 epochs.
    assert [changed[step] for step in range(2, 8)] == [(False, True)] * 6
    assert [changed[step] for step in range(8, 24)] == [(True, True)] * 16


def test_the_head_phase_drops_no_path_and_the_next_does(finetune, tmp_path, monkeypatch):
    modes = {}

    def look(state, batch) -> None:
        backbone = [*state.model.stem.modules(), *state.model.stages.modules(), *state.model.head.modules()]
        modes[batch.step] = ({module.training for module in backbone}, state.model.dropout.training)

    before_each_step(monkeypatch, look)
    start_run(finetune, tmp_path / "run", quiet=True)
    assert [modes[step] for step in range(7)] == [({False}, True)] * 7
    assert [modes[step] for step in range(7, 24)] == [({True}, True)] * 17


def test_shared_classes_keep_their_rows_of_the_classifier(finetune, pretrained):
    model = prepare_experiment(finetune).build_model()
    loaded = load_weights(str(pretrained)).state["classifier.weight"]
    assert torch.equal(model.classifier.weight[:2], loaded[:2])
    assert not torch.equal(model.classifier.weight[2], loaded[2])


@pytest.mark.parametrize("step", [4, 13])
def test_resume_equals_uninterrupted_where_weights_were_loaded(
    step, finetune, pretrained, tmp_path, monkeypatch
):
    start_run(finetune, tmp_path / "whole", quiet=True)

    with stopped_in(monkeypatch, step - 1), pytest.raises(InterruptedRunError):
        start_run(finetune, tmp_path / "run", quiet=True)
    resume_run(tmp_path / "run", quiet=True)
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    best = [
        load_weights(str(tmp_path / name / "checkpoints" / "best.safetensors")) for name in ("run", "whole")
    ]
    assert best[0].spec == best[1].spec
    assert best[0].preprocessing == best[1].preprocessing == load_weights(str(pretrained)).preprocessing


def test_resume_inside_the_head_phase_equals_uninterrupted(config, tmp_path, monkeypatch):
    headed = replace(config, train=replace(config.train, epochs=7.0, head_epochs=2.0))
    start_run(headed, tmp_path / "whole", quiet=True)

    with stopped_in(monkeypatch, 3), pytest.raises(InterruptedRunError):
        start_run(headed, tmp_path / "run", quiet=True)
    resume_run(tmp_path / "run", quiet=True)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_freeze_norm_keeps_the_statistics_and_trains_the_rest(finetune, pretrained, tmp_path):
    frozen = replace(finetune, train=replace(finetune.train, head_epochs=0.0, epochs=2.0, freeze_norm=True))
    start_run(frozen, tmp_path / "run", quiet=True)
    tensors, loaded = checkpoint(tmp_path / "run")[0], load_weights(str(pretrained)).state
    statistics = [n for n in loaded if n.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert len(statistics) >= 12
    for name in statistics:
        assert torch.equal(tensors[f"model/{name}"], loaded[name])
    for name in ("stem.conv.weight", "stem.norm.weight", "head.norm.bias"):
        assert not torch.equal(tensors[f"model/{name}"], loaded[name])


def test_freeze_norm_acts_in_every_phase_and_stage(finetune, tmp_path, monkeypatch):
    modes = {}

    def look(state, batch) -> None:
        norms = {module for module in state.model.modules() if isinstance(module, torch.nn.BatchNorm2d)}
        modes[batch.step] = ({norm.training for norm in norms}, state.model.stages[0][0].training)

    before_each_step(monkeypatch, look)
    start_run(
        replace(finetune, train=replace(finetune.train, freeze_norm=True)), tmp_path / "run", quiet=True
    )
    assert modes == {step: ({False}, step >= 7) for step in range(24)}


# What goes wrong


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_checkpoints(
    whole, config, tmp_path, monkeypatch
):
    def poison(state, batch) -> None:
        with torch.no_grad():
            state.model.classifier.bias.fill_(float("inf"))

    run, message = (
        tmp_path / "run",
        r"the loss is (nan|inf) at step 33, which begins in the output of classifier;",
    )
    config = replace(config, train=replace(config.train, on_non_finite="stop"))
    with stopped_in(monkeypatch, 33, poison), pytest.raises(DivergedRunError, match=message):
        start_run(config, run, quiet=True)
    assert all(tensor.isfinite().all() for tensor in checkpoint(run)[0].values())
    assert metrics(run)[-1]["step"] == 28
    # What made it diverge is gone: from the checkpoint the run goes on as it should have.
    resume_run(run, quiet=True)
    assert_same_end(run, whole.path)


@pytest.fixture
def damaged(photos, tmp_path) -> Path:
    """The photos, and a JPEG among those to train on that lost its end."""
    copy = tmp_path / "damaged"
    shutil.copytree(photos, copy)
    experiment = prepare_experiment(Config(data=DataConfig(source=str(copy))))
    file = next(copy / name for name in experiment.data.train.names if name.endswith(".jpg"))
    file.write_bytes(file.read_bytes()[:-120])
    return file


def test_a_truncated_jpeg_is_named_once_and_training_goes_on(config, damaged, tmp_path, monkeypatch, capsys):
    name = str(damaged.relative_to(damaged.parents[1]))
    data = replace(config.data, source=str(damaged.parents[1]))
    run, config = tmp_path / "run", replace(config, data=data)

    with stopped_in(monkeypatch, 17), pytest.raises(InterruptedRunError):
        start_run(config, run)
    assert capsys.readouterr().err.count(f"bad image {name}: ") == 1
    result = resume_run(run, quiet=True)
    records = [json.loads(line) for line in (run / "bad-images.jsonl").read_text().splitlines()]
    assert [record["name"] for record in records] == [name]
    assert "truncated" in records[0]["reason"]
    assert result.bad_images == 1
    assert result.val_top1 > 0.9


def test_too_many_bad_images_stop_the_run(config, damaged, tmp_path):
    strict = replace(config.data, source=str(damaged.parents[1]), max_bad_fraction=0.0)
    with pytest.raises(UserError, match=r"1 of 24 training images cannot be read.*truncated"):
        start_run(replace(config, data=strict), tmp_path / "run", quiet=True)


def test_a_full_disk_leaves_the_checkpoint_from_which_the_run_goes_on(whole, config, tmp_path, monkeypatch):
    from effnet.weights import storage

    real = storage.save_file

    def save_file(tensors, path, metadata) -> None:
        real(tensors, path, metadata=metadata)
        if "step-00000042" in path.name:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise OSError(28, "No space left on device")

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(storage, "save_file", save_file)
        with pytest.raises(OSError, match="No space left"):
            start_run(config, run, quiet=True)
    assert checkpoint(run)[1]["step"] == 28
    assert not list(run.glob("checkpoints/.*"))
    resume_run(run, quiet=True)
    assert_same_end(run, whole.path)
    assert metrics(run) == metrics(whole.path)


# When to evaluate


@pytest.mark.parametrize("every", [0.1, 0.3, 1.0, 2.5, 1000.0])
@pytest.mark.parametrize("rule", ["constant", "pixels"])
def test_evaluations_are_at_stages_ends_and_once_in_every_period(config, every, rule):
    changed = replace(
        config,
        evaluate=replace(config.evaluate, every_epochs=every),
        progressive=replace(config.progressive, batch_rule=rule),
    )
    experiment = prepare_experiment(changed)
    schedule = experiment.schedule
    steps = [step for step in range(1, schedule.total_steps + 1) if is_evaluation_step(experiment, step)]
    ends = {stage.end_step for stage in schedule.stages}
    assert ends <= set(steps)
    assert steps[-1] == schedule.total_steps
    periods = [int(schedule.epoch(step) / every) for step in steps if step not in ends]
    assert len(periods) == len(set(periods))
    # Nowhere is a whole period without one, as far as steps are short enough.
    longest = max(schedule.epoch(step) - schedule.epoch(step - 1) for step in steps)
    epochs = [0.0, *(schedule.epoch(step) for step in steps)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(epochs)]
    assert max(gaps) < every + longest + 1e-9
