"""What can go wrong in the middle of a run, made to happen: the run goes on, or ends in good order."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from effnet.api import resume_run, start_run
from effnet.config import Config, ProgressiveConfig
from effnet.data import filling
from effnet.data.failures import WorkerError
from effnet.data.processes import ONE_PROCESS
from effnet.data.transforms import TrainView
from effnet.recipes import config_to_toml
from effnet.training import keeper as keeper_module
from effnet.training import loop, plots, stopwatch
from effnet.training import step as step_module
from effnet.training.checkpoint import Snapshot, write_snapshot
from effnet.training.experiment import prepare_experiment
from effnet.training.guard import DivergedRunError, Guard
from effnet.training.journal import read_metrics
from effnet.training.keeper import checkpoints_in
from effnet.training.loop import InterruptedRunError
from effnet.training.parallel import micro_batches
from effnet.training.progress import Progress

LAST = 18


@pytest.fixture
def config(digits_run) -> Config:
    """18 steps of 48 digits in three stages, with all that a run can have; evaluated where a stage ends."""
    return replace(
        digits_run,
        data=replace(digits_run.data, workers=4),
        progressive=ProgressiveConfig(
            stages=3,
            image_size=(8, 12),
            mixup_alpha=(0.0, 0.4),
            cutmix_alpha=(0.1, 0.2),
            randaugment_magnitude=(0.0, 0.0),
        ),
        train=replace(digits_run.train, epochs=0.5, min_steps=LAST, batch_size=48, micro_batch_size=20),
        evaluate=replace(digits_run.evaluate, every_epochs=100.0),
    )


@pytest.fixture
def whole(config, tmp_path) -> Path:
    """The run that nobody disturbs."""
    assert start_run(config, tmp_path / "whole", quiet=True).steps == LAST
    return tmp_path / "whole"


def state_of(run: Path) -> dict[str, Tensor]:
    step, path = list(checkpoints_in(run / "checkpoints").items())[-1]
    assert step == LAST
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_same_end(run: Path, other: Path) -> None:
    tensors, expected = state_of(run), state_of(other)
    assert tensors.keys() == expected.keys()
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, expected[name])] == []


def setbacks(run: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run / "metrics.jsonl") if "setback" in record]


@contextmanager
def instead_of_step(do: Callable[..., Tensor | None]) -> Iterator[None]:
    """Let something be done instead of a step: ``do(real, state, batch, experiment)``."""
    real = loop.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", lambda *arguments: do(real, *arguments))
        yield


def spoiled(steps: set[int], times: int = 10**9) -> Callable[..., Tensor]:
    """Put a number that is not finite into the images of some steps, as often as is said."""
    left = itertools.repeat(None, times)

    def do(real, state, batch, experiment) -> Tensor:
        if batch.step not in steps or next(left, 0) == 0:
            return real(state, batch, experiment)

        def mix(images, targets, *arguments, **options):
            images, targets = real_mix(images, targets, *arguments, **options)
            images[3, 1, 2, 2] = float("nan")
            return images, targets

        real_mix = step_module.mix_batch
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_module, "mix_batch", mix)
            return real(state, batch, experiment)

    return do


# Numbers that are not finite


def test_nan_in_a_batch_leaves_that_step_out_and_nothing_else(config, tmp_path, capsys):
    with instead_of_step(spoiled({14})):
        result = start_run(config, tmp_path / "run")
    told = [line for line in capsys.readouterr().err.splitlines() if "step 14" in line]
    assert told == [
        "the loss is nan at step 14: back to step 12, these steps are done again, to see where that begins",
        "the loss is nan at step 14, which begins in the images: back to step 12, from where step 14 is left "
        "out",
    ]
    assert result.non_finite == 1
    assert [
        (r["step"], r["failed_step"], r["setback"].split(" at ")[0]) for r in setbacks(tmp_path / "run")
    ] == [(12, 14, "the loss is nan")] * 2

    def leave_out(real, state, batch, experiment) -> Tensor | None:
        return None if batch.step == 14 else real(state, batch, experiment)

    with instead_of_step(leave_out):
        start_run(config, tmp_path / "without", quiet=True)
    assert_same_end(tmp_path / "run", tmp_path / "without")


def test_a_run_that_left_a_step_out_is_continued_exactly(config, tmp_path):
    def stop(real, state, batch, experiment) -> Tensor:
        if batch.step == 15:
            signal.raise_signal(signal.SIGTERM)
        return spoiled({14})(real, state, batch, experiment)

    with instead_of_step(spoiled({14})):
        whole = start_run(config, tmp_path / "whole", quiet=True)
    with instead_of_step(stop), pytest.raises(InterruptedRunError):
        start_run(config, tmp_path / "run", quiet=True)
    with instead_of_step(spoiled({14})):
        result = resume_run(tmp_path / "run", quiet=True)
    assert result.non_finite == whole.non_finite == 1
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_nan_that_does_not_come_again_changes_nothing(config, whole, tmp_path):
    with instead_of_step(spoiled({14}, times=1)):
        result = start_run(config, tmp_path / "run", quiet=True)
    assert result.non_finite == 0
    assert len(setbacks(tmp_path / "run")) == 1
    assert_same_end(tmp_path / "run", whole)


def test_a_run_gives_up_when_too_many_steps_are_not_finite(config, tmp_path):
    strict = replace(config, train=replace(config.train, max_non_finite=2))
    with (
        instead_of_step(spoiled({13, 14, 15, 16})),
        pytest.raises(
            DivergedRunError,
            match=r"the loss is nan at step 15, which begins in the images, after such a step was left out 2 "
            r"times; a lower .* The state of step 12 is saved and finite",
        ),
    ):
        start_run(strict, tmp_path / "run", quiet=True)
    assert list(checkpoints_in(tmp_path / "run" / "checkpoints"))[-1] == 12


def test_a_run_that_shall_stop_says_where_it_begins(config, tmp_path):
    strict = replace(config, train=replace(config.train, on_non_finite="stop"))
    message = r"the loss is nan at step 8, which begins in the images; .* step 6 is saved"
    with instead_of_step(spoiled({8})), pytest.raises(DivergedRunError, match=message):
        start_run(strict, tmp_path / "run", quiet=True)


# The first window; inside one; the last step, behind which there is no loss to tell.
@pytest.mark.parametrize("step", [0, 9, LAST - 1])
def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is(config, tmp_path, step, capsys):
    def do(real, state, batch, experiment) -> Tensor:
        weight = state.model.head.conv.weight
        factor = float("inf") if batch.step == step else 1.0
        handle = weight.register_hook(lambda gradient: gradient * factor)
        try:
            return real(state, batch, experiment)
        finally:
            handle.remove()

    with instead_of_step(do):
        result = start_run(config, tmp_path / "run")
    told = capsys.readouterr().err
    assert (
        f"a gradient is not finite at step {step}, which begins in that of head.conv.weight: back to" in told
    )
    assert result.non_finite == 1
    assert all(tensor.isfinite().all() for tensor in state_of(tmp_path / "run").values())
    assert all(
        record.get("val_loss", 0.0) is not None for record in read_metrics(tmp_path / "run/metrics.jsonl")
    )


def test_what_overflows_in_the_optimizer_alone_is_found(config, tmp_path, capsys):
    """The square of a large gradient is infinite; its weight would never change again, and never be NaN."""

    def do(real, state, batch, experiment) -> Tensor:
        loss = real(state, batch, experiment)
        if batch.step == 8:
            slots = state.optimizer.state[state.model.head.conv.weight]
            slots["exp_avg_sq"][0] = float("inf")
        return loss

    with instead_of_step(do):
        result = start_run(config, tmp_path / "run")
    assert (
        "optimizer/head.conv.weight/exp_avg_sq is not finite after step 8: back to" in capsys.readouterr().err
    )
    assert result.non_finite == 1


def too_fast(real, state, batch, experiment) -> Tensor:
    """Let the loss burst where the learning rate is more than a third of 0.01."""
    loss = real(state, batch, experiment)
    if batch.step == 13 and step_module.rate_at(experiment.config, experiment.schedule, 13) > 0.0035:
        return loss * float("inf")
    return loss


def test_a_lower_learning_rate_goes_on_from_the_checkpoint(config, tmp_path, capsys):
    rate = replace(config.learning_rate, base=0.01, base_batch_size=48, schedule="constant")
    lower = replace(config, train=replace(config.train, on_non_finite="lower"), learning_rate=rate)
    with instead_of_step(too_fast):
        result = start_run(lower, tmp_path / "whole")
    assert result.non_finite == 2
    assert "back to step 12, from where the learning rate is 0.25 of what it was" in capsys.readouterr().err
    records = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    rates = {record["step"]: record["learning_rate"] for record in records if "loss" in record}
    assert rates == {6: 0.01, 10: 0.01, 12: 0.01, LAST: 0.0025}

    def stop(real, state, batch, experiment) -> Tensor:
        if batch.step == 15 and experiment.config.learning_rate.base < rate.base:
            signal.raise_signal(signal.SIGTERM)
        return too_fast(real, state, batch, experiment)

    with instead_of_step(stop), pytest.raises(InterruptedRunError):
        start_run(lower, tmp_path / "run", quiet=True)
    with instead_of_step(too_fast):
        assert resume_run(tmp_path / "run", quiet=True).non_finite == 2
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_in_fp16_gradients_that_overflow_at_every_scale_end_the_run(config):
    experiment = prepare_experiment(replace(config, train=replace(config.train, precision="fp16")))
    guard, state = Guard(experiment.config.train, ONE_PROCESS), step_module.initial_state(experiment)
    guard.check(state, Progress(step=9))
    state.scaler.load_state_dict(state.scaler.state_dict() | {"scale": 2.0**-11})
    with pytest.raises(DivergedRunError, match=r"gradients are not finite at step 8 though .* 'bf16'"):
        guard.check(state, Progress(step=9))


# Memory


def crowded(most: int) -> Callable[..., Tensor]:
    """Let the last stage have room for some images at a time."""

    def do(real, state, batch, experiment) -> Tensor:
        config, images = experiment.config.train, batch.settings.batch_size
        at_once = -(-images // micro_batches(images, experiment.processes, config.micro_batch_size))
        if batch.step >= 12 and at_once > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(state, batch, experiment)

    return do


def test_a_device_without_room_in_the_last_stage_runs_fewer_images_at_a_time(config, tmp_path, capsys):
    with instead_of_step(crowded(5)):
        result = start_run(config, tmp_path / "run")
    assert result.steps == LAST
    assert [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line] == [
        f"out of memory at step 12: back to step 12, from where {now} images are run at a time instead of "
        f"{before}: the batch stays 48, batch norm sees fewer images at once"
        for before, now in ((16, 8), (8, 4))
    ]
    assert [record["failed_step"] for record in setbacks(tmp_path / "run")] == [12, 12]
    # As if the last stage had been run so from its start.
    stopped = tmp_path / "other"

    def stop(real, state, batch, experiment) -> Tensor:
        if batch.step == 15:
            signal.raise_signal(signal.SIGTERM)
        return crowded(5)(real, state, batch, experiment)

    with instead_of_step(stop), pytest.raises(InterruptedRunError):
        start_run(config, stopped, quiet=True)
    with instead_of_step(crowded(5)):
        resume_run(stopped, quiet=True)
    assert len(setbacks(stopped)) == 2
    assert_same_end(tmp_path / "run", stopped)


def test_a_device_without_room_for_one_image_ends_the_run_in_good_order(config, whole, tmp_path):
    message = r"out of memory at step 12, with a single image at a time; .* The state of step 12 is saved"
    with instead_of_step(crowded(0)), pytest.raises(torch.OutOfMemoryError, match=message):
        start_run(config, tmp_path / "run", quiet=True)
    resume_run(tmp_path / "run", quiet=True)
    assert_same_end(tmp_path / "run", whole)


# The disk


def test_a_disk_that_is_full_at_the_end_is_told(config, whole, tmp_path, monkeypatch):
    def write(path: Path, snapshot: Snapshot) -> None:
        if snapshot.step == LAST:
            raise OSError(28, "No space left on device")
        write_snapshot(path, snapshot)

    with monkeypatch.context() as patch:
        patch.setattr(keeper_module, "write_snapshot", write)
        with pytest.raises(
            OSError, match=r"No space left .* once that is mended, continue with: effnet train"
        ):
            start_run(config, tmp_path / "run", quiet=True)
    resume_run(tmp_path / "run", quiet=True)
    assert_same_end(tmp_path / "run", whole)


def test_a_damaged_last_checkpoint_is_named_and_the_one_before_is_used(config, whole, tmp_path, capsys):
    run = tmp_path / "run"

    def stop(real, state, batch, experiment) -> Tensor:
        if batch.step == 14:
            signal.raise_signal(signal.SIGTERM)
        return real(state, batch, experiment)

    with instead_of_step(stop), pytest.raises(InterruptedRunError):
        start_run(config, run, quiet=True)
    newest = checkpoints_in(run / "checkpoints")[15]
    damaged = bytearray(newest.read_bytes())
    damaged[-100] ^= 4
    newest.write_bytes(damaged)
    resume_run(run)
    assert (
        f"the checkpoint {newest} is damaged (its contents do not have the digest that was written with "
        "them); it is now step-00000015.safetensors.damaged, and the run continues from step 12"
    ) in capsys.readouterr().err
    assert_same_end(run, whole)


# Signals


def test_sigterm_waits_for_what_is_being_written(config, tmp_path, monkeypatch):
    begun, written = threading.Event(), []

    def write(path: Path, snapshot: Snapshot) -> None:
        if snapshot.step:
            begun.set()
            threading.Event().wait(0.2)
        write_snapshot(path, snapshot)
        written.append(snapshot.step)

    def stop(real, state, batch, experiment) -> Tensor:
        if batch.step == 6:
            assert begun.wait(10)
            signal.raise_signal(signal.SIGTERM)
        return real(state, batch, experiment)

    monkeypatch.setattr(keeper_module, "write_snapshot", write)
    with instead_of_step(stop), pytest.raises(InterruptedRunError, match="stopped after step 7 of 18"):
        start_run(config, tmp_path / "run", quiet=True)
    assert written == [0, 6, 7]


KILLED = """
import os, signal, sys
from effnet.cli.main import main
from effnet.training import loop

real, last = loop.train_step, int(sys.argv.pop(1))
loop.plot_schedule = loop.plot_learning_curve = lambda *_: None
def step(state, batch, experiment):
    assert experiment.config.data.workers == 4 and experiment.config.train.micro_batch_size == 20
    if batch.step == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(state, batch, experiment)
loop.train_step = step
main()
"""


def test_a_run_killed_at_random_steps_in_three_stages_ends_with_the_same_bits(config, whole, tmp_path):
    """With mixup, moving average, accumulation and four threads; saved after every few steps."""
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(
        config_to_toml(replace(config, checkpoint=replace(config.checkpoint, every_minutes=1e-9)))
    )
    arguments = ["train", "--recipe", str(recipe), "--out", str(run), "--resume", "auto", "--quiet"]
    steps = [random.randrange(start, start + 6) for start in (0, 6, 12)]
    for step in steps:
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(step), *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, f"{steps}: {done.stderr}"
    resume_run(run, quiet=True)
    assert_same_end(run, whole)
    best = [(path / "checkpoints" / "best.safetensors").read_bytes() for path in (run, whole)]
    assert best[0] == best[1]


# Threads


def test_a_thread_that_dies_ends_the_run_with_its_state_saved(config, whole, tmp_path, monkeypatch):
    real, calls, run = filling.open_view, itertools.count(), tmp_path / "run"

    def open_view(*arguments: Any, **options: Any) -> TrainView:
        if next(calls) >= 48 * 14 + 7:
            raise ZeroDivisionError("a defect")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(filling, "open_view", open_view)
        with pytest.raises(
            WorkerError,
            match=r"the loader thread effnet-data_\d died at .*: ZeroDivisionError: a defect; once that "
            rf"is mended, continue with: effnet train --resume {run}",
        ):
            start_run(config, run, quiet=True)
    assert list(checkpoints_in(run / "checkpoints"))[-1] > 12
    resume_run(run, quiet=True)
    assert_same_end(run, whole)


# Time


def test_a_clock_that_runs_backwards_leaves_no_negative_time(config, tmp_path, monkeypatch):
    now = itertools.count(1e6, -7.5)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=lambda: next(now)))
    monkeypatch.setattr(loop, "plot_learning_curve", plots.plot_learning_curve)
    result = start_run(config, tmp_path / "run", quiet=True)
    assert (result.train_seconds, result.data_wait) == (0.0, 0.0)
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        times = {
            key: value for key, value in json.loads(line).items() if key in {"seconds", "images_per_second"}
        }
        assert set(times.values()) == {0.0}
    assert (tmp_path / "run" / "plots" / "learning-curve.png").is_file()
