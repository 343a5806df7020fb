"""``effnet ablate`` in this process; its runs are processes of their own."""

from __future__ import annotations

import importlib.util
import json

import pytest

from effnet.training.journal import read_metrics


def test_a_table_of_real_runs(effnet, photos, workspace, tmp_path):
    out = tmp_path / "table"
    network = f"model.network={workspace / 'tiny.json'}"
    options = ["--epochs", "1", "--images", "9", "--seeds", "1", "--cell", "progressive", "--out", out]
    settings = ["--set", network, "--set", "model.width=1.0", "--set", "model.depth=1.0"]
    settings += ["--set", "progressive.image_size=[8,16]", "--set", "train.batch_size=2"]
    answer = effnet("ablate", "table13", photos, *options, *settings)
    assert answer.code == 0, answer.err
    assert "progressive resize" in answer.out
    assert "84.3 ± 0.14 %" in answer.out
    table = json.loads((out / "table.json").read_text())
    (run,) = table["rows"][0]["runs"]
    metrics = read_metrics(out / "progressive" / "seed-0" / "metrics.jsonl")
    assert run["result"]["val_top1"] == metrics[-1]["val_top1"]
    assert run["result"]["images"] == 2 * metrics[-1]["step"]
    assert 0 < run["result"]["step_seconds"] <= run["result"]["train_seconds"]
    assert (out / "table.png").stat().st_size > 10_000

    again = effnet("ablate", "table13", photos, *options, *settings, "--json")
    assert again.code == 0
    assert again.err == ""
    assert json.loads(again.out)["rows"] == table["rows"]


def test_a_failed_run_ends_the_command_with_1_and_says_why(effnet, tmp_path):
    answer = effnet(
        "ablate", "table13", "digits", "--seeds", "1", "--cell", "fixed", "--out", tmp_path / "t",
        "--set", "model.network=v3-s",
    )  # fmt: skip
    assert answer.code == 1
    assert "failed: fixed, seed 0: unknown network 'v3-s'; did you mean 'v2-s'?" in answer.out
    assert (tmp_path / "t" / "table.md").is_file()
    assert not (tmp_path / "t" / "table.png").exists()


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is there")
def test_a_row_that_needs_timm_says_what_to_install_and_the_others_run(effnet, tmp_path):
    answer = effnet(
        "ablate", "table12", "digits", "--seeds", "1", "--epochs", "0.01", "--images", "40", "--jobs", "2",
        "--cell", "rn50-380-progressive", "--cell", "b4-380-progressive", "--out", tmp_path / "t",
        "--set", "progressive.image_size=[8,16]",
    )  # fmt: skip
    assert answer.code == 1
    assert (
        "failed: rn50-380-progressive, seed 0: networks of timm need timm: pip install 'effnet[timm]'"
        in answer.out
    )
    top1 = {
        row["name"]: row["top1"] for row in json.loads((tmp_path / "t" / "table.json").read_text())["rows"]
    }
    assert top1["rn50-380-progressive"] is None
    assert 0 <= top1["b4-380-progressive"]["mean"] <= 1


def test_without_a_table_all_are_listed(effnet):
    answer = effnet("ablate")
    assert answer.code == 0
    assert "table13" in answer.out
    assert "2104.00298" in answer.out


def test_mistakes(mistake):
    assert "unknown ablation 'table31'; did you mean 'table3'?" in mistake("ablate", "table31", "digits")
    assert "name the data to train on: effnet ablate table13 DATA" in mistake("ablate", "table13")
    assert "table13 sets progressive.stages itself" in mistake(
        "ablate", "table13", "digits", "--set", "progressive.stages=2"
    )


def test_figure_7_shows_what_grown_networks_look_at(effnet, finished, photos, workspace, tmp_path):
    out = tmp_path / "figure7"
    settings = {
        "model.network": workspace / "tiny.json",
        "model.weights": finished / "checkpoints" / "best.safetensors",
        "model.grow_from": "auto",
        "progressive.image_size": "[32,32]",
        "train.batch_size": 4,
    }
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    options = ("--seeds", "1", "--epochs", "1", "--cell", "wider", "--out", out)
    answer = effnet("ablate", "figure7", photos, *options, *changes)
    assert answer.code == 0, answer.err
    assert f"what they look at: {out}/looks/sheet.png" in answer.out
    looks = json.loads((out / "looks" / "explanation.json").read_text())
    assert [(network["name"], network["network"]) for network in looks["networks"]] == [
        ("wider", "tiny-width2")
    ]
    assert looks["methods"] == ["cam"]
    explained = [entry["answers"][0]["explained"] for entry in looks["images"]]
    assert explained[:3] == ["blue", "green", "red"]
