"""The Python interface, as the first lines of somebody's script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet.arch import spec_to_json
from effnet.config import Config
from effnet.data.sources import open_data
from effnet.training.journal import read_metrics
from effnet.training.loop import RunResult


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunResult:
    """A few epochs of a small network on small digits."""
    folder = tmp_path_factory.mktemp("runs")
    stage = effnet.StageSpec(
        operation="fused_mbconv", kernel_size=3, stride=1, expand_ratio=2, channels=16, repeats=2
    )
    spec = effnet.NetworkSpec(
        name="small", stages=(stage,), stem_channels=16, head_channels=64, image_size=16, train_size=16
    )
    (folder / "small.json").write_text(spec_to_json(spec))
    changes = ["train.epochs=3", "progressive.image_size=[8, 16]", "learning_rate.warmup_epochs=0.5"]
    return effnet.train(
        "digits",
        model=folder / "small.json",
        out=folder / "digits",
        changes=[*changes, "augment.operations=0", "ema.decay=0.9", "train.batch_size=32"],
        quiet=True,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Thirty of the held out digits as files, named after what they show."""
    val = open_data("digits", val_fraction=0.2, split_seed=0).val
    folder = tmp_path_factory.mktemp("digits")
    paths = []
    for index in range(0, 300, 10):
        path = folder / f"{index:03}-{val.class_names[val.labels[index]]}.png"
        Image.fromarray(np.asarray(val.read(index))).save(path)
        paths.append(path)
    return paths


def test_three_lines_train_load_and_predict(run, images):
    predictor = effnet.load(run.run)
    answers = predictor.predict(images, top=1)
    right = [answer.classes[0] == Path(answer.image).stem[-1] for answer in answers]
    assert run.val_top1 > 0.7
    assert np.mean(right) > 0.6


def test_a_run_can_be_evaluated_and_is_as_good_as_it_said(run):
    scores = effnet.evaluate(run.run)
    assert scores.top1 == pytest.approx(run.best_val_top1, abs=0.005)
    assert set(scores.class_top1) == set("0123456789")
    best = next(
        r for r in read_metrics(Path(run.run) / "metrics.jsonl") if r.get("val_top1") == run.best_val_top1
    )
    assert scores.loss == pytest.approx(best["val_loss"], rel=1e-3)


def test_a_run_on_some_of_the_images_is_evaluated_on_all_that_were_held_out(run, tmp_path):
    config = Path(run.run) / "config.toml"
    changes = ["data.max_train_images=50", "train.epochs=1", "augment.operations=0"]
    few = effnet.train("digits", recipe=config, out=tmp_path / "few", changes=changes, quiet=True)
    assert few.images == few.steps * 32 < 50
    assert effnet.evaluate(few.run).images == effnet.evaluate(run.run).images


def test_the_weights_of_a_run_build_a_network_for_anything_else(run):
    weights = effnet.load_weights(str(Path(run.run) / "checkpoints" / "best.safetensors"))
    model = effnet.build_model(weights.spec, weights=weights, num_classes=4)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    features = model.features(torch.zeros(1, 3, 32, 32))
    assert {"stem", "stage1", "head"} <= features.keys()


def test_every_public_name_is_there():
    for name in effnet.__all__:
        assert getattr(effnet, name) is not None
    assert sorted(effnet.__all__) == effnet.__all__
    names: dict[str, object] = {}
    exec("from effnet import *", names)
    assert set(effnet.__all__) <= names.keys()


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'effnet' has no attribute 'trian'"):
        _ = effnet.trian


def test_names_can_be_completed():
    assert set(effnet.__all__) <= set(dir(effnet))


def test_the_package_alone_does_not_import_torch():
    code = "import effnet, sys; effnet.network('v2-s'); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"


# What a configuration is made of


@pytest.mark.parametrize(
    ("arguments", "like"),
    [
        ({}, "demo"),
        ({"data": "digits"}, "demo"),
        ({"data": "photos"}, "scratch"),
        ({"data": "photos", "weights": "w.safetensors"}, "finetune"),
        ({"data": "digits", "recipe": "scratch"}, "scratch"),
    ],
)
def test_the_recipe_follows_from_what_is_given(arguments, like):
    config, recipe = effnet.configure(**arguments), effnet.configure(recipe=like)
    assert config.train == recipe.train
    assert config.progressive == recipe.progressive
    assert config.data.source == arguments.get("data", "digits")


def test_a_network_that_is_asked_for_is_not_scaled_like_the_recipes():
    assert effnet.configure("digits").model.width < 1
    model = effnet.configure("digits", model="v2-s").model
    assert (model.network, model.width, model.depth) == ("v2-s", 1.0, 1.0)


def test_changes_win_over_everything():
    config = effnet.configure(
        "photos", model="v2-s", changes=["data.source=others", "model.network=v2-m", "train.epochs=3"]
    )
    assert isinstance(config, Config)
    assert (config.data.source, config.model.network, config.train.epochs) == ("others", "v2-m", 3.0)


@pytest.mark.parametrize("path", ["photos = mine", "3", "true", "[1, 2]", "a'b\"c"])
def test_a_path_is_taken_as_it_is(path):
    assert effnet.configure(path).data.source == path


def test_a_mistake_is_a_value_error_that_can_be_caught():
    with pytest.raises(effnet.UserError, match=r"unknown key 'train.epoch' .*did you mean 'train.epochs'\?"):
        effnet.configure("digits", changes=["train.epoch=3"])
    assert issubclass(effnet.UserError, ValueError)
