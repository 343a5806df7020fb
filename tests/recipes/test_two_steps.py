"""Every shipped recipe trains: two steps with its own settings, on tiny images, in a tiny network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.api import configure, start_run
from effnet.recipes import load_recipe, recipe_names
from effnet.training import loop
from effnet.training.journal import read_metrics

TINY = (
    "model.weights=''",
    "data.classes=0",
    "data.train_split=''",
    "data.val_split=''",
    "data.label_column=''",
    "data.minival_fraction=0",
    "data.workers=1",
    "progressive.image_size=[16, 32]",
    "evaluate.image_size=16",
    "train.batch_size=4",
    "train.epochs=1",
    "train.min_steps=0",
    "train.head_epochs=0",
    "train.device=cpu",
    "evaluate.batch_size=4",
    "evaluate.every_epochs=100",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Eight images to train on and two to validate on, of two classes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def shrunk(recipe: str) -> list[str]:
    """Return what makes a recipe's network tiny; for one of timm, a tiny one stands in anyway."""
    if load_recipe(recipe).model.network.startswith("timm:"):
        return []
    return ["model.width=0.1", "model.depth=0.05"]


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_trains_for_two_steps(recipe, photos, tmp_path, monkeypatch, fake_timm):
    monkeypatch.setattr(loop, "plot_schedule", lambda *_: None)
    monkeypatch.setattr(loop, "plot_learning_curve", lambda *_: None)
    config = configure(photos, recipe=recipe, changes=[*TINY, *shrunk(recipe)])
    result = start_run(config, tmp_path / "run", quiet=True)
    losses = [
        record["loss"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record
    ]
    assert result.steps == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert (tmp_path / "run" / "checkpoints" / "best.safetensors").is_file()
