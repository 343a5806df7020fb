import json

import pytest

from effnet.search.step_time import StepTime


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """Steps of 10 ms, whatever the network."""

    def step(experiment, spec, reference, budget, *, images):
        assert experiment.config.train.batch_size >= images
        return StepTime(
            ratio=1.0 + spec.num_blocks / 100,
            spread=0.01,
            rounds=10,
            dropped=0,
            step_ms=10.0,
            reference_ms=10.0 + images,
            memory_mb=1.0,
            images=images,
            image_size=experiment.schedule.stages[-1].image_size,
        )

    monkeypatch.setattr("effnet.search.prediction_error.measure_step", step)
    monkeypatch.setattr("effnet.search.fused_order.measure_step", step)


def test_predictions_of_a_space_are_compared_with_measurements(effnet, tmp_path):
    out = tmp_path / "figures.json"
    answer = effnet("bench", "step-time", "--fitted", "10", "--held-out", "3", "--images", "4", "--out", out)
    assert answer.code == 0, answer.err
    assert answer.err.splitlines()[-1].startswith("13 of 13: ")
    assert answer.out.startswith("10 fitted, 3 held out, 20 splits")
    values = json.loads(out.read_text())
    assert len({network["name"] for network in values["networks"]}) == 13
    assert values["error"]["median"]["mean"] < 0.1
    assert values["environment"]["cpu_model"]


def test_fused_stages_are_compared(effnet):
    answer = effnet("bench", "fused", "--size", "32", "--images", "2,4", "--json")
    values = json.loads(answer.out)
    assert [row["name"] for row in values["rows"]] == [f"v1-b4.fused1-{last}" for last in (3, 5, 7)]
    assert [step["images"] for step in values["rows"][0]["steps"]] == [2, 4]
    assert values["rows"][0]["steps"][0]["image_size"] == 32
    shown = effnet("bench", "fused", "--size", "32", "--images", "2,4").out
    assert "fastest first, 4 images: v1-b4, v1-b4.fused1-3" in shown


@pytest.mark.parametrize("images", ["", "4", "12,4", "0,4", "4,4", "a,b"])
def test_numbers_of_images_are_ascending(mistake, images):
    message = mistake("bench", "fused", "--images", images)
    assert f"--images is '{images}'; give two ascending numbers or more, as 4,12" in message


def test_mistakes_are_named(mistake, tmp_path):
    out = tmp_path / "no" / "figures.json"
    assert f"--out '{out}'" in mistake("bench", "step-time", "--out", out)
    assert "cannot be read" in mistake("bench", "step-time", "--table", tmp_path / "none.csv")
    assert "unknown space 'smal'" in mistake("bench", "step-time", "--space", "smal")
    assert "has stages 1 to 6" in mistake("bench", "fused", "v2-b0")
