"""timm's part of ``benchmarks/time_to_accuracy.py``."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.api import configure
from effnet.training.experiment import prepare_experiment
from effnet.training.unread import prepare_unread

pytestmark = pytest.mark.peers
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = [
    "model.width=0.25",
    "model.depth=0.25",
    "progressive.stages=1",
    "progressive.image_size=[64,64]",
    "progressive.randaugment_magnitude=[0,0]",
    "progressive.dropout_rate=[0,0]",
    "progressive.drop_path_rate=[0,0]",
    "progressive.mixup_alpha=[0,0]",
    "train.device=cpu",
    "train.batch_size=8",
    "train.epochs=8",
    "data.workers=1",
]


@pytest.fixture(scope="module")
def theirs():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("race.theirs")
    sys.path.remove(str(BENCHMARKS))
    for name in [name for name in sys.modules if name.partition(".")[0] == "race"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for number in range(16):
                pixels = rng.integers(256, size=(48, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.jpg")
    return folder


@pytest.mark.parametrize("network", ["v2-b0", "v2-b0.stride16", "v1-b0"])
def test_timm_s_network_is_ours_with_the_same_weights(theirs, network):
    changes = [*SMALL, f"model.network={network}", "data.train_images=64", "data.classes=10"]
    run = prepare_unread(configure("imagenet", recipe="scratch", changes=changes))
    other, own = theirs.TimmRun(run).model.eval(), run.build_model().eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(other(images), own(images))


def test_timm_draws_sizes_that_grow_with_its_epochs(theirs, photos):
    run = prepare_experiment(configure(photos, recipe="scratch", changes=SMALL))
    loader = theirs.timm_loader(run, (32, 48, 64), 4, 4)
    means = []
    for epoch in range(4):
        loader.loader.batch_sampler.set_epoch(epoch)
        batches = [pixels.shape for pixels, _ in loader]
        assert len(batches) == 4
        assert all(shape[0] == 8 and shape[-1] in {32, 48, 64} for shape in batches)
        means.append(sum(shape[-1] for shape in batches))
    assert means[0] < means[-1]


def test_a_run_of_timm_tells_what_it_took(theirs, photos):
    race = importlib.import_module("race.races").RACES["flowers"]
    race = importlib.import_module("dataclasses").replace(race, timm_sizes=(32, 64), timm_epochs=2)
    found = theirs.run_timm(configure(photos, recipe="scratch", changes=[*SMALL, "train.epochs=2"]), race)
    assert found["steps"] == 8
    assert found["images"] == 64 == sum(size["images"] for size in found["sizes"])
    assert found["wall"] > sum(size["wall"] for size in found["sizes"]) > 0
    assert [point["step"] for point in found["curve"]] == [4, 8]
    assert found["top1"] == found["curve"][-1]["top1"]
