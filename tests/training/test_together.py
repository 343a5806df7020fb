"""Several processes train and evaluate as one does; torchrun starts them, and each costs seconds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from effnet.api import evaluate, resume_run, start_run
from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.config import (
    AugmentConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    DistributedConfig,
    EmaConfig,
    EvaluateConfig,
    LearningRateConfig,
    ModelConfig,
    OptimizerConfig,
    ProgressiveConfig,
    TrainConfig,
)
from effnet.data.processes import Processes, join_processes
from effnet.errors import UserError
from effnet.recipes import config_to_toml
from effnet.training import loop
from effnet.training.display import Display
from effnet.training.experiment import prepare_experiment
from effnet.training.interrupt import listen_for_interruption
from effnet.training.journal import read_metrics
from effnet.training.parallel import micro_batches
from effnet.training.step import step_seed

IMAGES, EPOCHS, BATCH = 23, 6, 7
"""Of training: no batch can be halved, and batches cross the borders of the epochs."""
STEPS = 19
TIMES = {"seconds", "step_seconds", "wait_seconds", "images_per_second", "data_wait"}
NETWORK = NetworkSpec(
    name="tiny",
    stages=(
        StageSpec(operation="fused_mbconv", kernel_size=3, stride=1, expand_ratio=1, channels=8, repeats=2),
        StageSpec(
            operation="mbconv", kernel_size=3, stride=2, expand_ratio=4, channels=12, repeats=2, se_ratio=0.25
        ),
    ),
    stem_channels=8,
    head_channels=24,
    image_size=12,
    train_size=12,
)


def color(index: int) -> tuple[int, int, int]:
    return 40 + 9 * index, 120 * (index % 2), 255 - 5 * index


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Images of one colour each, in two classes; one of each split cannot be read in ``damaged``."""
    folder = tmp_path_factory.mktemp("together")
    for split, count in (("train", IMAGES), ("val", 14)):
        for index in range(count):
            path = folder / "photos" / split / f"{index % 2}" / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((12, 12, 3), color(index), np.uint8)).save(path)
    shutil.copytree(folder / "photos", folder / "damaged")
    for split in ("train", "val"):
        (folder / "damaged" / split / "1" / "11.png").write_bytes(b"")
    (folder / "tiny.json").write_text(spec_to_json(NETWORK))
    return folder


@pytest.fixture(scope="module")
def config(work) -> Config:
    """A run that draws nothing in a step: it is the same whatever number of processes shares it."""
    return Config(
        model=ModelConfig(network=str(work / "tiny.json")),
        data=DataConfig(source=str(work / "damaged"), workers=1, max_bad_fraction=0.1),
        augment=AugmentConfig(operations=1, policy="relative"),
        progressive=ProgressiveConfig(
            stages=2,
            image_size=(8, 12),
            randaugment_magnitude=(0.0, 2.0),
            dropout_rate=(0.0, 0.0),
            drop_path_rate=(0.0, 0.0),
        ),
        train=TrainConfig(epochs=4.0, batch_size=BATCH, head_epochs=1.0, backbone_rate=0.5, device="cpu"),
        distributed=DistributedConfig(norm="all"),
        optimizer=OptimizerConfig(name="sgd"),
        learning_rate=LearningRateConfig(base=0.05, base_batch_size=BATCH, schedule="constant"),
        ema=EmaConfig(decay=0.5),
        evaluate=EvaluateConfig(every_epochs=1.0, batch_size=4),
    )


@pytest.fixture(scope="module")
def drawing(config, work) -> Config:
    """A run in two stages with all that a process draws for itself, in two micro-batches."""
    return replace(
        config,
        data=DataConfig(source=str(work / "photos"), workers=4, flip=False),
        augment=AugmentConfig(operations=0),
        progressive=replace(
            config.progressive,
            mixup_alpha=(0.1, 0.2),
            cutmix_alpha=(0.1, 0.2),
            dropout_rate=(0.1, 0.2),
            drop_path_rate=(0.1, 0.3),
        ),
        train=replace(
            config.train, epochs=float(EPOCHS), head_epochs=0.0, micro_batch_size=2, gradient_clip=5.0
        ),
        distributed=DistributedConfig(norm="local"),
        optimizer=OptimizerConfig(name="rmsprop_tf"),
        evaluate=EvaluateConfig(every_epochs=2.0, batch_size=4),
        checkpoint=CheckpointConfig(keep_last=1, keep_stage_ends=True),
    )


def torchrun(processes: int, *arguments: str | Path, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += ["--standalone", f"--max-restarts={restarts}", "--monitor-interval=0.1", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


TOGETHER = Path(__file__).with_name("together.py")


@pytest.fixture(scope="module")
def two(work, config, drawing) -> list[dict[str, Any]]:
    """What two processes found, after three runs: ``ddp``, ``fsdp`` and ``whole``."""
    sharded = replace(config, distributed=replace(config.distributed, strategy="fsdp"))
    for name, changed in (("ddp", config), ("fsdp", sharded), ("whole", drawing)):
        (work / f"{name}.toml").write_text(config_to_toml(changed))
    torchrun(2, TOGETHER, "checks", work)
    return [json.loads((work / f"found-{rank}.json").read_text()) for rank in range(2)]


def last_checkpoint(run: Path) -> dict[str, torch.Tensor]:
    return load_file(max(run.glob("checkpoints/step-*.safetensors")))


def seen_in(path: Path) -> dict[int, list[tuple[int, ...]]]:
    """Return the colours of the images that each step saw, as it was done last."""
    records = map(json.loads, path.read_text().splitlines())
    return {record["step"]: [tuple(color) for color in record["seen"]] for record in records}


def records(run: Path) -> list[dict[str, Any]]:
    lines = read_metrics(run / "metrics.jsonl")
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


# Messages and batch norm


def test_processes_tell_each_other_what_they_found(two):
    for found in two:
        assert found["messages"] == {
            "rows": [[10.0, 11.0, 12.0]],
            "no rows": 0,
            "texts": ["", "grün"],
            "none": False,
            "one": True,
            "sum": [2.0, 1.0],
        }


def test_one_process_needs_nobody():
    alone = Processes()
    assert alone.gather_text("text") == ["text"]
    assert (alone.any(True), alone.any(False), alone.sum([2.0])) == (True, False, [2.0])
    assert alone.workers(3) == 3


def test_processors_are_shared_by_the_processes_of_a_machine():
    assert Processes(count=64, local_count=10**6).workers(0) == 1
    assert Processes(count=64, local_count=8).workers(5) == 5


def test_batch_norm_over_processes_is_batch_norm_of_all_images(two):
    # Of numbers around 100, in fp32.
    for found in two:
        assert {name: error for name, error in found["norm"].items() if error > 2e-4} == {}
        assert found["norm"]["0.num_batches_tracked"] == 0


def test_batch_norm_of_a_group_sees_the_images_of_the_group(two):
    assert all(found["norm alone"] < 1e-5 for found in two)


# Training


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_processes_train_what_one_would(two, work, config, tmp_path, strategy):
    start_run(config, tmp_path / "run", quiet=True)
    ours, theirs = last_checkpoint(work / strategy), last_checkpoint(tmp_path / "run")
    assert ours.keys() == theirs.keys()
    apart = {name: float((ours[name] - tensor).abs().max()) for name, tensor in theirs.items()}
    assert {name: error for name, error in apart.items() if error > 1e-4} == {}
    for own, other in zip(records(work / strategy), records(tmp_path / "run"), strict=True):
        assert own == pytest.approx(other, rel=1e-3)


def test_bad_images_of_all_processes_are_told_once(two, work):
    lines = (work / "ddp" / "bad-images.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["name"] for line in lines) == ["train/1/11.png", "val/1/11.png"]


def test_no_image_is_seen_twice_or_missed_by_two_processes(two, work):
    first, second = (seen_in(work / f"seen-{rank}.jsonl") for rank in range(2))
    assert [len(images) for images in first.values()] == [3] * STEPS
    assert [len(images) for images in second.values()] == [4] * STEPS
    assert_each_once_an_epoch([first[step] + second[step] for step in range(STEPS)])


def assert_each_once_an_epoch(steps: list[list[tuple[int, ...]]]) -> None:
    """Make sure that every image came as often as it should, counted over all processes and steps."""
    seen = [image for images in steps for image in images]
    assert len(seen) == STEPS * BATCH
    for start in range(0, len(seen), IMAGES):
        epoch = seen[start : start + IMAGES]
        assert len(set(epoch)) == len(epoch)
    assert set(seen) == {color(index) for index in range(IMAGES)}


def test_one_process_continues_what_two_began_with_the_images_that_are_left(two, work, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(work / "whole", run)
    begun, *later = sorted(run.glob("checkpoints/step-*.safetensors"))
    for path in later:
        path.unlink()
    steps = int(begun.stem.removeprefix("step-"))
    assert steps == STEPS // 2
    after: dict[int, list[tuple[int, ...]]] = {}
    real, messages = loop.train_step, []

    def step(state, batch, experiment) -> torch.Tensor:
        after[batch.step] = [tuple(pixel) for pixel in batch.images[:, 0, 0].tolist()]
        return real(state, batch, experiment)

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(Display, "message", lambda self, text: messages.append(text))
    assert resume_run(run, quiet=True).steps == STEPS

    first, second = (seen_in(work / f"seen-{rank}.jsonl") for rank in range(2))
    before = [first[number] + second[number] for number in range(steps)]
    assert list(after) == list(range(steps, STEPS))
    assert_each_once_an_epoch(before + list(after.values()))
    # The very images that two processes would have seen in these steps.
    assert all(images == first[number] + second[number] for number, images in after.items())
    [message] = [text for text in messages if text.startswith("continues")]
    assert message.startswith(
        "continues at step 9 with 1 processes instead of 2: each has 7 images of a batch of 7"
    )
    assert {"step": 9, "processes": 1, "processes_before": 2} in records(run)


def test_a_run_whose_processes_are_killed_ends_as_if_they_were_not(two, work, drawing, tmp_path):
    run, recipe = tmp_path / "run", tmp_path / "drawing.toml"
    recipe.write_text(config_to_toml(drawing))
    command = ["train", drawing.data.source, "--recipe", recipe, "--out", run, "--resume", "auto", "--quiet"]
    # Before the first checkpoint, and between those at steps 9 and 14, in the second stage.
    done = torchrun(2, TOGETHER, "3,11", *command, restarts=2)
    assert done.stderr.count("another process of the run has ended") == 2
    ours, theirs = last_checkpoint(run), last_checkpoint(work / "whole")
    assert ours.keys() == theirs.keys()
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []
    assert records(run) == records(work / "whole")
    assert not list(run.glob("checkpoints/.*"))


def test_micro_batches_have_the_gradient_of_the_whole(two, work, config, tmp_path):
    # Batch norm would take its statistics over fewer images.
    weights = work / "whole" / "checkpoints" / "best.safetensors"
    frozen = replace(config, model=replace(config.model, weights=str(weights)))
    # Few steps: rounding grows.
    short = replace(config.train, freeze_norm=True, head_epochs=0.0, epochs=1.0)
    for most in (0, 3):
        train = replace(short, micro_batch_size=most)
        start_run(replace(frozen, train=train), tmp_path / str(most), quiet=True)
    ours, theirs = (last_checkpoint(tmp_path / str(most)) for most in (3, 0))
    apart = {
        name: float((ours[name] - tensor).abs().max() / tensor.abs().max().clamp(min=1.0))
        for name, tensor in theirs.items()
    }
    assert {name: error for name, error in apart.items() if error > 1e-5} == {}
    assert any(apart.values())


@pytest.mark.parametrize(
    ("images", "processes", "most", "parts"),
    [(64, 1, 0, 1), (64, 1, 16, 4), (64, 1, 15, 5), (7, 2, 0, 1), (7, 2, 3, 2), (7, 2, 1, 3), (8, 2, 4, 1)],
)
def test_every_process_has_as_many_micro_batches(images, processes, most, parts):
    assert micro_batches(images, Processes(count=processes), most) == parts


def test_processes_drop_and_mix_differently_and_the_first_as_if_it_were_alone():
    seeds = {step_seed(1, step, rank) for step in range(20) for rank in range(4)}
    assert len(seeds) == 80
    assert step_seed(1, 5, 0) == step_seed(1, 5)


# Evaluation


def test_evaluation_does_not_depend_on_the_number_of_processes(two, work):
    alone = evaluate(work / "whole", batch_size=4, device="cpu").to_dict()
    assert alone["images"] == 14
    assert [found["score"] for found in two] == [alone, alone]
    done = torchrun(
        3, "-m", "effnet", "evaluate", work / "whole", "--batch-size", "4", "--device", "cpu", "--json"
    )
    assert json.loads(done.stdout) == alone


def test_images_with_several_labels_are_counted_together(two):
    assert all(found["several labels"] for found in two)


# Signals


def test_a_signal_that_torchrun_sends_a_second_time_is_no_second_wish(monkeypatch):
    with listen_for_interruption() as alone:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    with listen_for_interruption() as started:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert alone.is_requested
    assert started.is_requested


# What cannot be


def test_a_batch_smaller_than_the_processes_is_told(config):
    with pytest.raises(UserError, match="a batch of 7 images cannot be shared by 8 processes"):
        prepare_experiment(config, processes=Processes(count=8))


def test_groups_of_batch_norm_that_differ_in_size_are_told(config):
    uneven = replace(config, distributed=DistributedConfig(norm="group", norm_group=4))
    prepare_experiment(uneven, processes=Processes(count=2))
    with pytest.raises(UserError, match=r"6 processes cannot .* groups of distributed\.norm_group = 4"):
        prepare_experiment(uneven, processes=Processes(count=6))


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"compile": "default"}, "needs distributed.strategy=ddp and distributed.norm=local"),
        ("train", {"precision": "fp16"}, "'fsdp' does not go with"),
        ("train", {"adaptive_clip": 0.1}, "'fsdp' does not go with"),
        ("optimizer", {"name": "lamb"}, "'fsdp' does not go with"),
    ],
)
def test_what_needs_whole_layers_is_not_sharded(config, section, changes, message):
    sharded = replace(config, distributed=DistributedConfig(strategy="fsdp"))
    changed = replace(sharded, **{section: replace(getattr(sharded, section), **changes)})
    prepare_experiment(changed)
    with pytest.raises(UserError, match=message):
        prepare_experiment(changed, processes=Processes(count=2))


def test_one_gpu_is_not_for_several_processes(monkeypatch):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match="'cuda:1', but 2 processes train together"), join_processes("cuda:1"):
        pass


# Real images


def test_two_processes_train_on_cifar10(work, tmp_path):
    source = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10"
    if not source.is_dir():
        pytest.skip(f"there is no real data in {source.parent.name} beside the checkout")
    # The recipe with a smaller network, without decoding all images first, and cut off after three steps.
    changes = [
        "train.epochs=0.008",
        "train.device=cpu",
        "model.width=0.25",
        "model.depth=0.25",
        "data.resident=false",
        "progressive.stages=1",
        "progressive.image_size=[16,16]",
        "evaluate.image_size=16",
        "distributed.norm=all",
    ]
    arguments = [part for change in changes for part in ("--set", change)]
    run = tmp_path / "run"
    done = torchrun(
        2,
        "-m",
        "effnet",
        "train",
        source,
        "--recipe",
        "cifar10",
        "--out",
        run,
        "--json",
        "--quiet",
        *arguments,
    )
    result = json.loads(done.stdout)
    assert result["steps"] == 3
    assert 0 < result["val_top1"] < 1
    assert records(run)[-1]["val_images"] == 10_000
