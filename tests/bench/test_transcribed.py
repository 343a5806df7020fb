import random

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.bench import transcribed
from effnet.bench.transcribed import Box, random_resized_crop, timm_image, torchvision_image
from effnet.bench.transcribed_randaugment import BICUBIC, FILL, NEAREST, randaugment


def test_crops_lie_inside_and_have_the_areas_and_aspects_asked_for():
    draws = random.Random(0)
    boxes = [random_resized_crop(500, 375, draws) for _ in range(3000)]
    areas = np.array([box.width * box.height for box in boxes]) / (500 * 375)
    aspects = np.array([box.width / box.height for box in boxes])
    assert all(box.left >= 0 and box.left + box.width <= 500 for box in boxes)
    assert all(box.top >= 0 and box.top + box.height <= 375 for box in boxes)
    assert (areas.min(), areas.max()) == (pytest.approx(0.08, abs=0.005), pytest.approx(1.0, abs=0.02))
    assert (aspects.min(), aspects.max()) == (pytest.approx(0.75, abs=0.02), pytest.approx(4 / 3, abs=0.02))
    assert len({box.left for box in boxes}) > 200


@pytest.mark.parametrize(
    ("size", "box"),
    [((1000, 10), Box(493, 0, 13, 10)), ((10, 1000), Box(0, 493, 10, 13))],
)
def test_no_crop_fits_a_strip_so_that_its_middle_is_taken(size, box):
    draws = random.Random(0)
    boxes = {random_resized_crop(*size, draws) for _ in range(50)}
    assert box in boxes


@pytest.fixture
def file(source):
    return source / "lily" / "0.jpg"


@pytest.mark.parametrize("seed", range(4))
def test_a_timm_image_is_pillows_crop_resized_and_mirrored_or_not(file, seed):
    draws = random.Random(seed)
    box = random_resized_crop(90, 60, draws)
    is_mirrored = draws.random() < 0.5
    image = Image.open(file).crop((box.left, box.top, box.left + box.width, box.top + box.height))
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    got = timm_image(file, 32, random.Random(seed), with_randaugment=False)
    assert got.dtype == torch.uint8
    assert np.array_equal(got.numpy(), expected[..., ::-1] if is_mirrored else expected)


def _whole(width, height, draws):
    return Box(0, 0, width, height)


def test_half_of_the_images_are_mirrored(file, monkeypatch):
    monkeypatch.setattr(transcribed, "random_resized_crop", _whole)
    plain = np.asarray(Image.open(file).resize((16, 16), Image.Resampling.BILINEAR))
    draws = random.Random(0)
    mirrored = [
        np.array_equal(
            np.asarray(transcribed.cropped(file, 16, Image.Resampling.BILINEAR, draws)), plain[:, ::-1]
        )
        for _ in range(200)
    ]
    assert 70 < sum(mirrored) < 130


def test_a_torchvision_image_is_normalised(file, monkeypatch):
    monkeypatch.setattr(transcribed, "random_resized_crop", _whole)
    resized = np.asarray(Image.open(file).resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    got = torchvision_image(file, 16, random.Random(2))  # not mirrored
    expected = (resized / 255 - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape(
        [0.229, 0.224, 0.225], (3, 1, 1)
    )
    assert np.allclose(got.numpy(), expected, atol=1e-5)


@pytest.fixture
def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def _apply(name, image, sign=1, table=BICUBIC):
    return np.asarray(table[name](image, sign))


def test_operations_on_levels(noise):
    levels = np.asarray(noise).astype(int)
    assert np.array_equal(_apply("Posterize", noise), levels & 0xF0)
    assert np.array_equal(_apply("Solarize", noise), levels)
    assert np.array_equal(_apply("Invert", noise), 255 - levels)
    added = np.where(levels < 128, np.minimum(levels + 110, 255), levels)
    assert np.array_equal(_apply("SolarizeAdd", noise), added)
    assert np.array_equal(_apply("Brightness", noise), np.minimum(levels * 19 // 10, 255))


LEFT, RIGHT = slice(0, 22), slice(18, 40)


@pytest.mark.parametrize(("sign", "kept", "shown"), [(1, LEFT, RIGHT), (-1, RIGHT, LEFT)])
def test_translations_are_a_share_of_the_image_and_leave_the_mean_colour(noise, sign, kept, shown):
    for table in (BICUBIC, NEAREST):
        moved = _apply("TranslateXRel", noise, sign, table)
        assert np.array_equal(moved[:, kept], np.asarray(noise)[:, shown])
        rest = np.delete(moved, np.r_[kept], axis=1)
        assert (rest == FILL).all()
        upwards = _apply("TranslateYRel", noise, sign, table)
        assert np.array_equal(upwards[kept], np.asarray(noise)[shown])


def test_the_filter_matters_to_motion_only(noise):
    differing = {name for name in BICUBIC if (_apply(name, noise) != _apply(name, noise, 1, NEAREST)).any()}
    assert differing == {"Rotate", "ShearX", "ShearY"}  # whole pixels need no filter


def test_two_operations_are_drawn_with_replacement(noise):
    drawn = []
    table = {name: lambda image, sign, name=name: drawn.append((name, sign)) or image for name in "abcd"}
    draws = random.Random(0)
    for _ in range(400):
        randaugment(noise, draws, table)
    assert len(drawn) == 800
    assert len({(one, other) for (one, _), (other, _) in zip(drawn[::2], drawn[1::2], strict=True)}) == 16
    assert {sign for _, sign in drawn} == {-1, 1}
