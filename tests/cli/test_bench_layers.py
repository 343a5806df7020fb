from __future__ import annotations

import json

import pytest

from effnet.profiling import device


@pytest.fixture(autouse=True)
def small_roofs(monkeypatch):
    monkeypatch.setattr(device, "_COPIED", {"cpu": 1 << 16})
    monkeypatch.setattr(device, "_SIDE", {"cpu": 32})


def _given(workspace, *more: str) -> tuple[str, ...]:
    return (
        "bench",
        "layers",
        str(workspace / "tiny.json"),
        "--size",
        "16",
        "--batch",
        "2",
        "--device",
        "cpu",
        *more,
    )


def test_figures_picture_and_table(effnet, workspace, tmp_path):
    out = tmp_path / "layers.json"
    answer = effnet(*_given(workspace, "--rounds", "1", "--out", str(out)))
    assert answer.code == 0
    assert "measuring layer 1 of" in answer.err
    assert "weight gradient" in answer.out
    assert "roofs, measured: copying" in answer.out
    values = json.loads(out.read_text())
    assert (values["network"], values["mode"], values["batch"]) == ("tiny", "train", 2)
    assert values["environment"]["torch"]
    assert (tmp_path / "layers.png").stat().st_size > 10_000


def test_answers_as_json(effnet, workspace):
    answer = effnet(*_given(workspace, "--infer", "--rounds", "1", "--quiet", "--json"))
    values = json.loads(answer.out)
    assert answer.err == ""
    assert values["mode"] == "infer"
    assert {done["pass"] for row in values["kinds"] for done in row["passes"]} == {"forward"}


def test_mistakes(mistake, workspace, tmp_path):
    assert "did you mean 'v2-s'" in mistake("bench", "layers", "v2-ss")
    assert "the folder of --out" in mistake(*_given(workspace, "--out", str(tmp_path / "no" / "file.json")))
    assert "is the name of the picture" in mistake(*_given(workspace, "--out", str(tmp_path / "layers.png")))
    assert "train.device must be auto, cpu" in mistake("bench", "layers", "v2-s", "--device", "tpu")
    assert "--batch is 1, of which batch norm" in mistake(*_given(workspace, "--batch", "1"))
    assert "--batch" in mistake(*_given(workspace, "--batch", "0"))
