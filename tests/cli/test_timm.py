"""The whole way of a network of timm, which a small one stands in for: train, continue, use, export."""

from __future__ import annotations

import json

import pytest
import torch

from effnet.training import loop
from effnet.training.journal import read_metrics
from effnet.weights.storage import read_metadata, read_tensors

SETTINGS = ["progressive.drop_path_rate=[0.0,0.2]", "train.head_epochs=0.5", "evaluate.image_size=16"]


@pytest.fixture
def options(recipe):
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    return ["--recipe", recipe, "--model", "timm:tinynet", *changes]


def last_checkpoint(run):
    return read_tensors(max((run / "checkpoints").glob("step-*.safetensors")))


def test_a_network_of_timm_is_trained_evaluated_used_and_exported(
    effnet, fake_timm, options, photos, tmp_path
):
    run = tmp_path / "run"
    answer = effnet("train", photos, *options, "--out", run, "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    assert result["macs"] > 0
    assert {record["image_size"] for record in read_metrics(run / "metrics.jsonl")} == {8, 16}
    assert read_metadata(run / "checkpoints" / "best.safetensors")["spec"]["name"] == "timm:tinynet"

    scores = json.loads(effnet("evaluate", run, "--json").out)
    assert scores["top1"] == pytest.approx(result["best_val_top1"])
    assert effnet("predict", run, photos / "red" / "0.jpg").code == 0
    again = effnet("train", photos, *options, "--weights", run, "--out", tmp_path / "again", "--json")
    assert again.code == 0, again.err

    assert effnet("export", run, "--to", "timm", "--out", tmp_path / "timm").code == 0
    model = fake_timm.create_model("tinynet", num_classes=3)
    model.load_state_dict(read_tensors(tmp_path / "timm" / "model.safetensors"))
    config = json.loads((tmp_path / "timm" / "config.json").read_text())
    assert (config["architecture"], config["pretrained_cfg"]["classifier"]) == ("tinynet", "fc")
    assert config["label_names"] == ["blue", "green", "red"]


def test_only_the_classifier_learns_in_the_head_phase(effnet, fake_timm, options, photos, tmp_path):
    out = tmp_path / "run"
    options += ["--set", "train.head_epochs=5", "--set", "ema.decay=0", "--set", "train.seed=3"]
    assert effnet("train", photos, *options, "--out", out, "--quiet").code == 0
    weights = read_tensors(out / "checkpoints" / "best.safetensors")
    torch.manual_seed(3)
    body = fake_timm.create_model("tinynet", num_classes=0, drop_path_rate=0.5).state_dict()
    assert all(torch.equal(weights[f"body.{name}"], tensor) for name, tensor in body.items())


@pytest.mark.usefixtures("fake_timm")
def test_a_continued_run_ends_with_the_same_weights(effnet, options, photos, tmp_path, monkeypatch):
    assert effnet("train", photos, *options, "--out", tmp_path / "whole", "--quiet").code == 0
    steps = 0
    train_step = loop.train_step

    def stop_once(*arguments, **keywords):
        nonlocal steps
        steps += 1
        if steps == 5:
            raise OSError("the machine is gone")
        return train_step(*arguments, **keywords)

    monkeypatch.setattr(loop, "train_step", stop_once)
    assert effnet("train", photos, *options, "--out", tmp_path / "parts", "--quiet").code == 1
    assert effnet("train", "--resume", tmp_path / "parts", "--quiet").code == 0
    whole, parts = (last_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_its_plan_counts_multiply_adds(effnet, fake_timm, options, photos):
    plan = json.loads(effnet("plan", photos, *options, "--no-measure", "--json").out)
    assert 0.4 < plan["relative_macs"] < 0.8


def test_mistakes(fake_timm, mistake, options, photos):
    assert "model.padding changes the layers of EfficientNets, and timm:tinynet is none" in mistake(
        "train", photos, *options, "--set", "model.padding=same"
    )
    assert "timm:fixednet takes images of 16 px only" in mistake(
        "train", photos, *options, "--model", "timm:fixednet"
    )
    assert "the layers of timm:tinynet are known to timm only" in mistake("models", "timm:tinynet")
