"""MobileNetV1, MobileNetV2 and ResNet-50 from a plan to an export, made thin and for images of 16 px."""

from __future__ import annotations

import json

import pytest

from effnet.weights import load_weights


@pytest.fixture
def options(recipe):
    """Return how a network is made thin and trained for a moment."""
    changes = ["model.width=0.1", "model.depth=0.15", "train.epochs=1", "model.gradient_checkpointing=true"]
    return ["--recipe", recipe, *(part for change in changes for part in ("--set", change))]


@pytest.mark.parametrize("name", ["mobilenet-v1", "mobilenet-v2", "resnet-50"])
def test_they_are_planned_trained_and_not_exported_as_what_timm_has_not(
    name, effnet, options, photos, tmp_path
):
    options = [*options, "--model", f"{name}.stride8"]
    plan = json.loads(effnet("plan", photos, *options, "--no-measure", "--json").out)
    assert [stage["image_size"] for stage in plan["stages"]] == [8, 16]

    run = tmp_path / "run"
    answer = effnet("train", photos, *options, "--out", run, "--quiet")
    assert answer.code == 0, answer.err
    loaded = load_weights(str(run / "checkpoints" / "best.safetensors"))
    assert loaded.spec.name == f"{name}.stride8-width0.1-depth0.15"
    refused = effnet("export", run, "--to", "timm", "--out", tmp_path / "timm")
    assert refused.code == 2
    assert f"timm has no network with the layers of {name}.stride8-width0.1-depth0.15" in refused.err
