"""``effnet scale``: what comes of it is a file that the other commands take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effnet.arch import load_spec, network


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_non_uniform_alone_writes_v2_s_m_and_l(effnet, tmp_path):
    answer = effnet("scale", "v2-b0", "--non-uniform")
    assert answer.code == 0, answer.err
    for name in ("v2-s", "v2-m", "v2-l"):
        assert load_spec(f"{name}.json") == network(name)
    assert "V2-S, as published and not by the rule: stage 6 has 256 channels" in answer.out
    assert "wrote v2-s.json, v2-m.json, v2-l.json" in answer.out
    assert effnet("models", "v2-m.json").out.count("54.14 M") == 1


def test_phi_writes_the_published_network_and_tells_of_the_formula(effnet):
    answer = effnet("scale", "v1-b0", "--phi", "4", "--json")
    written = json.loads(answer.out)
    (found,) = written["networks"]
    assert found["file"] == "v1-b4.json"
    assert load_spec("v1-b4.json") == network("v1-b4")
    assert found["params"] == 19_341_616
    assert "width 1.46, depth 2.07 and resolution 1.75" in found["remarks"][0]
    assert written["base"]["name"] == "v1-b0"


def test_constants_of_ones_own_are_the_formula(effnet):
    answer = effnet("scale", "v1-b0", "--phi", "1.5", "--alpha", "1.3", "--out", "mine.json", "--json")
    (found,) = json.loads(answer.out)["networks"]
    assert found["coefficients"] == pytest.approx(
        {"width": 1.1**1.5, "depth": 1.3**1.5, "resolution": 1.15**1.5}
    )
    assert load_spec("mine.json").name == "v1-b0-phi1.5"


def test_single_axes_scale_a_file_and_what_they_give_can_be_scaled_again(effnet):
    assert effnet("scale", "v2-b0", "--depth", "2", "--out", "deep.json").code == 0
    answer = effnet("scale", "deep.json", "--width", "0.5", "--non-uniform", "--cap", "160")
    assert answer.code == 0, answer.err
    (path,) = [word for word in answer.out.split() if word.startswith("v2-b0-depth2-non")][-1:]
    spec = load_spec(path)
    assert (spec.image_size, spec.stages[1].channels, spec.stages[1].repeats) == (160, 16, 4)


def test_sizes_are_chosen_and_the_rule_alone_can_be_had(effnet):
    answer = effnet("scale", "v2-b0", "--non-uniform", "--size", "s", "--no-exceptions")
    assert "V2-S, left out, as published: stage 6 has 256 channels, it is trained at 300 px" in answer.out
    assert load_spec("v2-b0-s.json").stages[5].channels == 272


def test_the_same_command_again_is_no_mistake_but_other_files_stay(effnet, mistake):
    for _ in range(2):
        assert effnet("scale", "v1-b0", "--phi", "1").code == 0
    assert "v1-b1.json is there already and holds something else" in mistake(
        "scale", "v1-b0", "--phi", "2", "--out", "v1-b1.json"
    )
    assert load_spec("v1-b1.json") == network("v1-b1")


def test_mistakes(mistake):
    for options in ([], ["--phi", "1", "--width", "2"], ["--width", "2", "--size", "s"]):
        assert "say how to scale in one way: --phi N" in mistake("scale", "v1-b0", *options)
    assert "give --phi N or --to COST=BUDGET" in mistake("scale", "v1-b0", "--alpha", "1.2", "--width", "2")
    assert "give --non-uniform as well" in mistake("scale", "v1-b0", "--size", "s")
    assert "unknown network 'v1-b9'" in mistake("scale", "v1-b9", "--phi", "1")
    assert "give --out x.txt.json" in mistake("scale", "v1-b0", "--phi", "1", "--out", "x.txt")
    assert "width multiplies a network, so it must be above 0" in mistake("scale", "v1-b0", "--width=-1")


def test_a_grid_of_real_runs_is_printed_and_chooses_on_training_images(effnet, workspace):
    tiny = workspace / "tiny.json"
    options = ["--recipe", workspace / "tiny.toml", "--candidates", "1", "--out", "grid"]
    answer = effnet("scale", tiny, "--grid", workspace / "photos", *options, "--tolerance", "0.5")
    assert answer.code == 0, answer.err
    assert "1 of them are tried" in answer.err
    assert f"use it with: effnet scale {tiny} --alpha" in answer.out
    assert Path("grid/table.md").is_file()
    assert "minival_fraction = 0.2" in Path("grid/recipe.toml").read_text()
