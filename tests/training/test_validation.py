"""When a run is evaluated, which weights, and when that ends it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from effnet.api import resume_run, start_run
from effnet.training import loop, validation
from effnet.training.journal import read_metrics
from effnet.training.keeper import checkpoints_in
from effnet.training.loop import InterruptedRunError

EVALUATED = [3, 5, 7, 9, 10]


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run / "metrics.jsonl") if "val_top1" in record]


def score_in_turn(monkeypatch, accuracies: Sequence[float]) -> None:
    """Let evaluations at steps 3, 5, ... come to these accuracies."""
    real, at = validation.evaluate_model, dict(zip(EVALUATED, accuracies, strict=True))
    monkeypatch.setattr(
        validation,
        "evaluate_model",
        lambda model, *rest, **options: replace(
            real(model, *rest, **options), top1=at[int(model.stem.norm.num_batches_tracked)]
        ),
    )


def test_a_run_that_no_longer_improves_is_stopped_and_says_so(digits_run, tmp_path, monkeypatch, capsys):
    score_in_turn(monkeypatch, [0.3, 0.5, 0.5, 0.5, 0.9])
    patient = replace(digits_run, train=replace(digits_run.train, early_stop_epochs=0.3))
    result = start_run(patient, tmp_path / "run")
    # Step 5 was the last improvement; 0.3 epochs are 3.2 steps, and equal is no better.
    assert result.stopped_early
    assert (result.steps, result.best_step, result.best_val_top1) == (9, 9, 0.5)
    records = evaluations(tmp_path / "run")
    assert [record.get("stopped_early") for record in records] == [None, None, None, True]
    assert ", stopped early" in capsys.readouterr().err.splitlines()[-1]

    again = resume_run(tmp_path / "run", quiet=True)
    assert again == result
    assert evaluations(tmp_path / "run") == records


def test_a_resumed_run_stops_at_the_same_step(digits_run, tmp_path, monkeypatch):
    score_in_turn(monkeypatch, [0.3, 0.5, 0.4, 0.2, 0.9])
    patient = replace(digits_run, train=replace(digits_run.train, early_stop_epochs=0.3))
    real = loop.train_step

    def step(state, batch, experiment):
        if batch.step in {5, 7}:
            signal.raise_signal(signal.SIGTERM)
        return real(state, batch, experiment)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        with pytest.raises(InterruptedRunError, match="step 6 of 10"):
            start_run(patient, tmp_path / "run", quiet=True)
        with pytest.raises(InterruptedRunError, match="step 8 of 10"):
            resume_run(tmp_path / "run", quiet=True)
    result = resume_run(tmp_path / "run", quiet=True)
    assert (result.steps, result.stopped_early, result.best_step) == (9, True, 5)


@pytest.mark.parametrize(
    ("epochs", "accuracies"),
    [(0.3, [0.3, 0.3, 0.4, 0.4, 0.5]), (0.6, [0.5, 0.5, 0.5, 0.5, 0.5]), (0.0, [0.5, 0.4, 0.3, 0.2, 0.1])],
    ids=["improves in time", "at its end anyway", "switched off"],
)
def test_a_run_goes_on_to_its_end(digits_run, tmp_path, monkeypatch, epochs, accuracies):
    score_in_turn(monkeypatch, accuracies)
    patient = replace(digits_run, train=replace(digits_run.train, early_stop_epochs=epochs))
    result = start_run(patient, tmp_path / "run", quiet=True)
    assert (result.steps, result.stopped_early) == (10, False)
    assert not any("stopped_early" in record for record in evaluations(tmp_path / "run"))


def test_weights_without_averaging_are_evaluated_when_asked_for(digits_run, tmp_path, capsys):
    raw = replace(digits_run, evaluate=replace(digits_run.evaluate, raw=True))
    start_run(digits_run, tmp_path / "averaged", quiet=True)
    start_run(raw, tmp_path / "both")
    start_run(replace(digits_run, ema=replace(digits_run.ema, decay=0.0)), tmp_path / "alone", quiet=True)
    averaged, both, alone = (evaluations(tmp_path / name) for name in ("averaged", "both", "alone"))
    assert len(both) == 5
    # The weights are those of a run without a moving average, and nothing else is changed by looking at them.
    assert [(r["val_raw_top1"], r["val_raw_loss"]) for r in both] == [
        (r["val_top1"], r["val_loss"]) for r in alone
    ]
    assert [(r["val_top1"], r["val_loss"]) for r in both] == [
        (r["val_top1"], r["val_loss"]) for r in averaged
    ]
    assert [r["val_loss"] for r in both] != [r["val_raw_loss"] for r in both]
    last = [
        load_file(list(checkpoints_in(tmp_path / name / "checkpoints").values())[-1])
        for name in ("averaged", "both")
    ]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())
    assert f"without averaging {both[-1]['val_raw_top1']:.2%}" in capsys.readouterr().err


def test_nothing_is_evaluated_twice_where_there_is_no_average(digits_run, tmp_path):
    alone = replace(
        digits_run,
        ema=replace(digits_run.ema, decay=0.0),
        evaluate=replace(digits_run.evaluate, raw=True, every_epochs=1.0),
    )
    start_run(alone, tmp_path / "run", quiet=True)
    assert not any("val_raw_top1" in record for record in evaluations(tmp_path / "run"))


def test_cudnn_goes_by_its_rules_while_a_run_is_evaluated(digits_run, tmp_path, monkeypatch):
    """To try out algorithms for the shapes of a few batches takes longer than these take."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    seen, real = [], validation.evaluate_model

    def watched(*given, **options):
        seen.append(torch.backends.cudnn.benchmark)
        return real(*given, **options)

    monkeypatch.setattr(validation, "evaluate_model", watched)
    start_run(digits_run, tmp_path / "run", quiet=True)
    assert seen == [False] * len(EVALUATED)
    assert torch.backends.cudnn.benchmark
