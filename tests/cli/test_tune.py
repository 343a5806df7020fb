"""The command that says which settings are fastest."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from effnet.cli.tune import _precision_text
from effnet.schedule.progressive import StageSettings
from effnet.training import compute as compute_module
from effnet.training import tune as tune_module
from effnet.training.batch_sizes import BatchSpeed
from effnet.training.compute import Candidate, ComputeTuning, StageCompute
from effnet.training.thread_tuning import ThreadSpeed, ThreadTuning
from effnet.training.tune import PlaceSpeed, StageSpeed, Tuning
from effnet.training.tune_run import RunTuning
from effnet.training.ways import Compute

SETTINGS = StageSettings(
    stage=0,
    start_step=0,
    end_step=100,
    image_size=128,
    batch_size=64,
    randaugment_magnitude=5.0,
    mixup_alpha=0.0,
    cutmix_alpha=0.0,
    dropout_rate=0.0,
    drop_path_rate=0.0,
)
STAGES = tuple(
    StageSpeed(
        settings=replace(SETTINGS, stage=stage, image_size=128 + 64 * stage),
        measured_batch_size=32,
        network=900.0,
        loader={1: 250.0, 2: loader},
        together=400.0 + 50 * stage,
        data_wait=0.25,
    )
    for stage, loader in enumerate([500.0, 1000.0])
)


COMPUTED = Candidate(
    compute=Compute(kernels="plain", memory_format="channels_last", precision="fp32", compile="off"),
    stages=tuple(
        StageCompute(
            settings=stage.settings,
            batch_size=32,
            seconds_per_image=(0.001, 0.002, 0.004),
            first_seconds=1.0,
            is_compiled=False,
            memory_bytes=0,
        )
        for stage in STAGES
    ),
    speedup=1.0,
    cost=1.0,
)
FAILED = Candidate(
    compute=Compute(kernels="plain", memory_format="channels_last", precision="fp32", compile="default"),
    stages=(),
    failure="RuntimeError: no compiler",
)
HALF = replace(COMPUTED, compute=replace(COMPUTED.compute, precision="bf16"), speedup=1.05, cost=1 / 1.05)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tune_module, "SECONDS", 0.01)
    monkeypatch.setattr(tune_module, "_CPU_STEP_SECONDS", 0.02)
    monkeypatch.setattr(compute_module, "_SECONDS", 0.001)
    monkeypatch.setattr(compute_module, "_CPU_STEP_SECONDS", 0.02)


@pytest.fixture
def told(monkeypatch, effnet, recipe):
    """Print what follows from made-up speeds."""

    def tell(short_sides: tuple[int, ...], data: str) -> list[str]:
        worker = PlaceSpeed(place="worker", workers=2, stages=STAGES)
        slower = tuple(replace(stage, together=100.0, loader={1: 2000.0}) for stage in STAGES)
        device = PlaceSpeed(place="device", workers=1, stages=slower)
        tuning = Tuning(places=(worker, device), fastest=worker, short_sides=short_sides)
        compute = ComputeTuning(candidates=(COMPUTED, FAILED, HALF), fastest=COMPUTED, about={})
        batches = (BatchSpeed(image_size=128, images_per_second={8: 300.0, 16: 480.0, 32: 500.0}),)
        whole = RunTuning(
            compute=compute,
            batches=batches,
            loader=tuning,
            threads=ThreadTuning(
                image_size=128,
                speeds=(
                    ThreadSpeed(threads=2, workers=2, images_per_second=300.0),
                    ThreadSpeed(threads=1, workers=1, images_per_second=400.0),
                ),
            ),
            kept=(Path("tuned/compute-1.json"),),
            seconds=75.0,
        )
        monkeypatch.setattr("effnet.api.tune", lambda config, has_data, compiles, keeps, report: whole)
        answer = effnet("tune", data, "--recipe", recipe)
        assert (answer.code, answer.err) == (0, "")
        return [line.rstrip() for line in answer.out.splitlines()]

    return tell


@pytest.mark.usefixtures("quick")
def test_tune_prints_speeds_and_what_to_set(effnet, recipe, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = effnet("tune", photos, "--recipe", recipe)
    assert answer.code == 0
    rows = [line.split() for line in answer.out.splitlines() if line.startswith(("worker", "device"))]
    assert [row[:5] for row in rows] == [
        [place, str(stage), size, "px", "4"]
        for place in ("worker", "device")
        for stage, size in ((1, "8"), (2, "16"))
    ]
    assert "fastest: --set train.kernels=" in answer.out
    assert re.search(r"kept in\n  \S*compute-\S*\n  \S*loader-\S*\nmeasured in ", answer.out)
    assert "measuring steps at 8 px" in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_tune_prints_json(effnet, recipe):
    document = json.loads(effnet("tune", "--recipe", recipe, "--json").out)
    assert [change.partition("=")[0] for change in document["changes"]] == [
        "train.kernels",
        "train.memory_format",
        "train.precision",
        "train.compile",
        "data.workers",
        "augment.place",
    ]
    assert len(document["compute"]["candidates"]) >= 2
    assert len(document["kept"]) == 2
    assert {stage["image_size"] for place in document["places"] for stage in place["stages"]} == {8, 16}


def test_what_is_slower_than_the_network_is_named_with_what_helps(told):
    told_lines = told((160, 240), "my photos")
    assert told_lines[0] == "images a second of training steps, by the way they are computed"
    assert told_lines[1].split() == [
        *("kernels", "memory", "format", "precision", "compile", "128", "px", "192", "px"),
        *("ratio", "steps", "start"),
    ]
    assert told_lines[2].split() == [
        *("*", "plain", "channels_last", "fp32", "off", "500.0", "500.0", "1.00"),
        *("25.6", "s", "2.0", "s"),
    ]
    assert told_lines[3].split() == ["plain", "channels_last", "fp32", "default", "failed", "failed"]
    assert told_lines[4].split()[:7] == ["plain", "channels_last", "bf16", "off", "500.0", "500.0", "1.05"]
    assert told_lines[5:11] == [
        "the start counts where the network is compiled, which every run does anew",
        "plain channels_last fp32 default failed: RuntimeError: no compiler",
        "bf16 is 1.05 times as fast as fp32: not taken, as it changes results and is not 1.1 times as fast",
        "",
        "images a second at 128 px by images at once: 8: 300.0, 16: 480.0, 32: 500.0; 16 are enough",
        "",
    ]
    lines = told_lines[11:]
    assert lines[:4] == [
        "images a second: the network alone, the loader alone, both together",
        "augment.place  stage    size  batch  network  1 thread  2 threads  together  wait  bottleneck",
        "worker             1  128 px     32    900.0       250        500     400.0   25%      loader",
        "worker             2  192 px     32    900.0       250       1000     450.0   25%     network",
    ]
    assert lines[5].split() == ["device", "2", "192", "px", "32", "900.0", "2000", "100.0", "25%", "network"]
    assert lines[7:] == [
        "augment.place=worker with data.workers=2: 30.2 s of training steps",
        "augment.place=device with data.workers=1: 2 min 8 s of training steps",
        "the loader is the bottleneck of stage 1; smaller copies of the images are read faster:",
        "  effnet data prepare 'my photos' --out STORE --short-sides 160,240",
        "",
        "images a second at 128 px, by the threads that compute and that prepare images",
        "   train.threads  data.workers  together",
        "               2             2     300.0",
        "*              1             1     400.0",
        "fastest: --set train.kernels=plain --set train.memory_format=channels_last "
        "--set train.precision=fp32 --set train.compile=off --set data.workers=1 --set augment.place=worker "
        "--set train.threads=1",
        "effnet train uses them wherever its configuration says `auto`, or 0 for a number; kept in",
        "  tuned/compute-1.json",
        "measured in 1 min 15 s",
    ]


@pytest.mark.parametrize(("device", "doubt"), [("cpu", True), ("NVIDIA H100", False)])
def test_a_chosen_precision_that_changes_results_is_told_with_its_gain_and_its_risk(device, doubt):
    faster = replace(HALF, speedup=1.28, cost=1 / 1.28)
    tuning = ComputeTuning(candidates=(COMPUTED, faster), fastest=faster, about={"device": device})
    open_question = "; whether it trains as well on a processor is open: of two seeds one ended with a higher"
    assert _precision_text(tuning) == (
        "bf16 is 1.28 times as fast as any other precision; it changes results by its rounding, which "
        f"train.precision=fp32 avoids{f'{open_question} loss (docs/log.md)' if doubt else ''}"
    )


def test_where_nothing_can_be_prepared_the_bottleneck_is_named_alone(told):
    assert told((), "store")[-10] == "the loader is the bottleneck of stage 1"


def test_data_that_is_not_there_is_told(mistake, recipe, photos):
    assert "photoz' does not exist" in mistake("tune", photos.parent / "photoz", "--recipe", recipe)
