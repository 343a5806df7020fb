"""Runs one after the other in one process, as on a GPU."""

import json
import time

import numpy as np
import pytest
import time_to_accuracy as script
from PIL import Image
from race import alone, case, races

from effnet.data import resident
from effnet.schedule.progressive import stage_schedule
from effnet.training.loop import InterruptedRunError

RACE = races.RACES["cifar10-whole"]


@pytest.fixture
def data(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / "data" / "cifar10" / ("train" if number < 16 else "val") / f"class{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path / "data"


def _given(data, tmp_path, *more):
    given = ["--races", RACE.name, "--one-process", "--quick", "--work", str(tmp_path / "work"), *more]
    return [str(data), *given, "--set", "data.classes=0", "--set", "data.train_images=0"]


def test_all_runs_have_the_same_images_which_are_opened_once(data, tmp_path, monkeypatch):
    decoded = []
    load = resident.load_resident

    def counted(*given):
        decoded.append(given)
        return load(*given)

    monkeypatch.setattr(alone, "load_resident", counted)
    monkeypatch.setattr("effnet.training.experiment.load_resident", counted)
    alone.opened_once.cache_clear()
    script.main(_given(data, tmp_path, "--arms", "fixed,lower"))
    report = json.loads((tmp_path / "work" / "quick.json").read_text())
    assert list(report["runs"]) == [f"{RACE.name} fixed 0", f"{RACE.name} lower 0"]
    assert len(decoded) == 1
    assert report["opening"][RACE.name]["wall"] > 0
    fixed, lower = report["runs"].values()
    assert fixed["images"] == lower["images"] == 16
    assert [entry["image_size"] for entry in fixed["sizes"]] == [32]
    assert max(entry["image_size"] for entry in lower["sizes"]) == 24


def test_what_is_interrupted_is_told_and_nothing_more_is_begun(monkeypatch):
    def stop(self, request, *, is_rehearsal):
        begun.append(request["arm"])
        raise InterruptedRunError("stopped after step 3")

    begun = []
    monkeypatch.setattr(alone.Alone, "_run", stop)
    racing = alone.Alone(None, lambda request, answer: None)
    racing.run([{"race": RACE.name, "arm": arm, "seed": 0} for arm in ("fixed", "paper")])
    assert begun == ["fixed"]
    assert racing.failures == ["stopped; the same command goes on with the runs that are left"]


def test_no_run_is_begun_that_would_end_too_late(monkeypatch):
    now, noted = [0.0], []

    def run(self, request, *, is_rehearsal):
        now[0] += 1.0 if is_rehearsal else {"fixed": 40.0, "paper": 15.0}[request["arm"]]
        return {}

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(alone.Alone, "_run", run)
    racing = alone.Alone(100.0, lambda request, answer: noted.append((request["arm"], request["seed"])))
    requests = [{"race": RACE.name, "arm": a, "seed": s} for s in range(2) for a in ("fixed", "paper")]
    racing.run(requests)
    assert noted == [("fixed", 0), ("paper", 0), ("fixed", 1)]
    assert now[0] == 2 + 40 + 15 + 40


@pytest.mark.parametrize(
    "arm", [arm for arm in case.ARMS if arm.engine == "effnet"], ids=lambda arm: arm.name
)
def test_a_rehearsal_has_some_steps_of_each_size(arm, tmp_path):
    config = case.config_of(RACE, arm, seed=0, data=tmp_path, extra=[])

    def sizes(given):
        stages = stage_schedule(given.progressive, given.train, train_images=50_000, train_size=32).stages
        return {stage.image_size for stage in stages if stage.steps}

    assert sizes(alone.rehearsal_of(config, 50_000)) == sizes(config)


def test_the_race_for_a_gpu_is_not_run_on_a_processor_by_default(data):
    assert RACE.name not in script.parsed([str(data), "--weights", "x"]).races.split(",")
    assert "random" not in script.parsed([str(data), "--weights", "x"]).arms.split(",")


def test_only_a_race_with_a_lower_schedule_has_that_arm(data):
    arguments = script.parsed(
        [str(data), "--races", f"flowers,{RACE.name}", "--arms", "lower", "--seeds", "1"]
    )
    assert {job["race"] for job in script.jobs(arguments, {})} == {RACE.name}


def test_on_one_process_only_effnets_arms_race_by_themselves(data, tmp_path):
    arms = script.parsed(_given(data, tmp_path)).arms.split(",")
    assert "fixed" in arms
    assert not {"timm", "composer"} & set(arms)


@pytest.mark.parametrize(
    ("option", "name", "meant"), [("--races", "cifar", "cifar10"), ("--arms", "fixd", "fixed")]
)
def test_a_name_that_there_is_not_is_told(data, tmp_path, capsys, *, option, name, meant):
    with pytest.raises(SystemExit):
        script.parsed([*_given(data, tmp_path), option, name])
    assert f"error: {option} has '{name}'; did you mean '{meant}'?" in capsys.readouterr().err
