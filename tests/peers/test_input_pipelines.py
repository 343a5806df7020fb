"""What `effnet bench input` transcribes of other libraries, against the libraries themselves."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.bench import transcribed
from effnet.bench.alone import timm_randaugment_options
from effnet.bench.transcribed import Box, random_resized_crop, timm_image, torchvision_image
from effnet.bench.transcribed_randaugment import BICUBIC
from effnet.bench.workload import CROP_AREA, CROP_ASPECT, MAGNITUDE, OPERATIONS

pytestmark = pytest.mark.peers

RANDAUGMENT = f"rand-m{MAGNITUDE}-n{OPERATIONS}-p1"


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((240, 180), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def file(image, tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    image.save(path, quality=95)
    return path


def _theirs(timm, size, **changes):
    options = {"scale": CROP_AREA, "ratio": CROP_ASPECT, "interpolation": "bicubic", "color_jitter": 0.0}
    return timm.data.create_transform(
        (3, size, size), is_training=True, use_prefetcher=True, **(options | changes)
    )


@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (500, 100), (64, 64), (1000, 10), (10, 1000), (1, 1)]
)
def test_crops_are_drawn_as_by_timm(timm, size):
    crop = timm.data.transforms.RandomResizedCropAndInterpolation
    blank = Image.new("RGB", size)
    for seed in range(200):
        random.seed(seed)
        top, left, height, width = crop.get_params(blank, CROP_AREA, CROP_ASPECT)
        assert random_resized_crop(*size, random.Random(seed)) == Box(left, top, width, height)


@pytest.mark.parametrize("size", [96, 128, 224])
def test_an_image_has_the_pixels_of_timms(timm, file, size):
    opened = Image.open(file).convert("RGB")
    for seed in range(20):
        draws = random.Random(seed)
        random_resized_crop(*opened.size, draws)
        is_mirrored = draws.random() < 0.5
        random.seed(seed)
        expected = _theirs(timm, size, hflip=float(is_mirrored))(opened)
        assert torch.equal(timm_image(file, size, random.Random(seed), with_randaugment=False), expected)


def test_randaugment_is_set_up_as_by_timm(timm):
    *_, transform, _ = _theirs(timm, 128, auto_augment=RANDAUGMENT).transforms
    assert [operation.name for operation in transform.ops] == list(BICUBIC)
    assert {operation.prob for operation in transform.ops} == {1.0}
    assert (transform.num_layers, transform.choice_weights) == (OPERATIONS, None)
    alone = timm.data.auto_augment.rand_augment_transform(RANDAUGMENT, timm_randaugment_options())
    for ours, theirs in zip(alone.ops, transform.ops, strict=True):
        assert (ours.name, ours.kwargs, ours.magnitude) == (theirs.name, theirs.kwargs, theirs.magnitude)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", BICUBIC)
def test_an_operation_has_the_pixels_of_timms(timm, image, name, sign, monkeypatch):
    monkeypatch.setattr(random, "random", lambda: 1.0 if sign < 0 else 0.0)
    *_, transform, _ = _theirs(timm, 128, auto_augment=RANDAUGMENT).transforms
    (theirs,) = (operation for operation in transform.ops if operation.name == name)
    expected = np.asarray(theirs(image))
    assert np.array_equal(np.asarray(BICUBIC[name](image, sign)), expected)


def test_an_image_has_the_values_of_torchvisions(torchvision, file, monkeypatch):
    from torchvision import transforms

    opened = Image.open(file).convert("RGB")
    crop = transforms.RandomResizedCrop(96, scale=CROP_AREA, ratio=CROP_ASPECT, antialias=True)
    rest = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(0.0),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(transcribed.IMAGENET_MEAN, transcribed.IMAGENET_STD),
        ]
    )
    for seed in range(20):
        torch.manual_seed(seed)
        top, left, height, width = crop.get_params(opened, list(CROP_AREA), list(CROP_ASPECT))
        box = Box(left, top, width, height)
        monkeypatch.setattr(transcribed, "random_resized_crop", lambda *_, box=box: box)
        torch.manual_seed(seed)
        expected = rest(crop(opened))
        got = torchvision_image(file, 96, random.Random(2))  # not mirrored
        assert torch.allclose(got, expected, atol=1e-6)
