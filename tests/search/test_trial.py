"""A trial's own process, here within this one: what it measures, trains, rejects and survives."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from effnet.arch.accounting import network_cost
from effnet.arch.io import spec_to_json, to_dict
from effnet.files import write_json
from effnet.search.bounds import Bounds
from effnet.search.job import Job, TrialFolder, read_costs, read_ending
from effnet.search.trial import INTERRUPTED, run_trial, training_config, why

from .studies import BACKBONE, settings, wait_for


@pytest.fixture
def folder(tmp_path):
    prepared = TrialFolder(path=tmp_path)
    prepared.spec_path.write_text(spec_to_json(BACKBONE))
    give(prepared)
    return prepared


def give(folder, **changes):
    job = Job(settings=settings(**changes), source="digits", threads=1, reference=BACKBONE)
    write_json(folder.job_path, to_dict(job))
    return job


def test_a_candidate_is_measured_and_trained(folder):
    ending = run_trial(folder)
    assert ending.state == "done"
    measures = ending.measures
    assert measures is not None
    cost = network_cost(BACKBONE, 8)
    assert (measures.params, measures.macs) == (cost.params, cost.macs)
    # The candidate is the reference.
    assert measures.step_ms == pytest.approx(10.0, rel=0.9)
    assert measures.latency_ms is None
    assert measures.accuracy is not None
    assert 0 <= measures.accuracy <= 1
    assert read_costs(folder) == replace(measures, accuracy=None)


def test_accuracy_is_on_images_held_out_of_the_training_images(folder):
    run_trial(folder)
    held_out = json.loads((folder.run / "split.json").read_text())
    from effnet.data.sources import open_configured

    run = settings().run
    plain = open_configured(replace(run.data, source="digits", minival_fraction=0.0, max_train_images=0))
    seen_by_nobody = set(plain.val.names)
    searched = open_configured(replace(run.data, source="digits"))
    assert not seen_by_nobody & {*searched.val.names, *searched.train.names}
    assert {*searched.val.names} <= {*plain.train.names}
    assert held_out


def test_a_measured_cost_over_its_bound_rejects_before_any_training(folder):
    give(folder, bounds=Bounds(max_step_ms=1e-3))
    ending = run_trial(folder)
    assert ending.state == "rejected"
    assert "over max_step_ms" in ending.reason
    assert not folder.run.exists()


def test_costs_are_measured_once(folder, monkeypatch):
    run_trial(folder)
    monkeypatch.setattr("effnet.search.trial.measure_costs", lambda *_: pytest.fail("measured again"))
    assert run_trial(folder).state == "done"


def test_a_training_that_cannot_go_on_is_begun_anew(folder):
    first = run_trial(folder)
    (folder.run / "config.toml").write_text("nonsense")
    assert run_trial(folder) == first


def test_evaluations_come_where_candidates_are_compared():
    job = Job(settings=settings(eta=3, rungs=1), source="digits", threads=2, reference=BACKBONE)
    config = training_config(job, Path("spec.json"))
    assert config.evaluate.every_epochs == pytest.approx(1.0)
    assert config.data.source == "digits"
    assert config.data.workers == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA out of memory. Tried\n to"), "out of memory: CUDA out of memory. Tried to"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: DefaultCPU"),
        (MemoryError(), "out of memory: MemoryError"),
        (ValueError("a number is not\nfinite"), "a number is not finite"),
    ],
)  # fmt: skip
def test_reasons_are_one_line_and_name_memory(error, reason):
    assert why(error).startswith(reason)
    assert "\n" not in why(error)


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", "effnet.search.trial", str(folder.path)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_the_process_leaves_the_reason_of_a_failure_in_its_folder(folder):
    folder.spec_path.write_text("nonsense")
    with start(folder) as process:
        assert process.wait(120) == 0
    ending = read_ending(folder)
    assert ending is not None
    assert ending.state == "failed"
    assert "spec.json" in ending.reason


def test_the_process_ends_with_its_worker_and_saves_what_it_has(folder):
    endless = settings()
    run = replace(endless.run, train=replace(endless.run.train, epochs=1e5))
    give(folder, run=run)
    with start(folder) as process:
        wait_for(
            lambda: (folder.run / "metrics.jsonl").exists() and (folder.run / "metrics.jsonl").stat().st_size,
            120,
        )
        assert process.stdin is not None
        process.stdin.close()  # As it is closed when a worker is killed.
        assert process.wait(120) == INTERRUPTED
    assert read_ending(folder) is None
    assert len(list((folder.run / "checkpoints").glob("step-*.safetensors"))) > 1
