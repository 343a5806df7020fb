import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from effnet.arch.preprocessing import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data import augment as augment_module
from effnet.data.crops import Crop, center_crop, draw_crop
from effnet.data.transforms import eval_image, resize_crop, train_image

PLAIN = AugmentConfig(operations=0)


def resized(image, crop, size, **options):
    out = np.zeros((size, size, 3), np.uint8)
    resize_crop(image, crop, **options, out=out)
    return out


def view_of(encoded, settings, config, augment, rng):
    out = np.zeros((settings.image_size, settings.image_size, 3), np.uint8)
    train_image(encoded, settings, config=config, augment=augment, rng=rng, out=out)
    return out


@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    low=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32),
)
def test_crop_is_inside_the_image_and_of_the_asked_shape(height, width, low, seed):
    config = DataConfig(crop_area=(low, 1.0))
    crop = draw_crop(height, width, config, np.random.default_rng(seed))
    assert crop.width >= 1
    assert crop.height >= 1
    assert crop.x >= 0
    assert crop.y >= 0
    assert crop.x + crop.width <= width
    assert crop.y + crop.height <= height
    if (crop.width, crop.height) != (width, height):
        slack = (crop.width + crop.height + 1) / (height * width)  # Both sides are rounded.
        assert crop.width * crop.height / (height * width) >= low - slack
        assert crop.width >= 0.75 * crop.height - 0.5
        assert crop.width <= 4 / 3 * crop.height + 0.5


def test_crops_have_the_released_distribution():
    config = DataConfig()
    rng = np.random.default_rng(0)
    crops = [draw_crop(400, 400, config, rng) for _ in range(4000)]
    sides = np.array([(crop.width * crop.height) ** 0.5 / 400 for crop in crops])
    assert sides.min() == pytest.approx(0.05**0.5, abs=0.02)
    # The side is uniform, from sqrt(0.05) to what fits: 1 at aspect 1, less beside it.
    assert sides.mean() == pytest.approx(0.58, abs=0.02)
    assert {crop.x for crop in crops} >= set(range(10))
    assert max(crop.x + crop.width for crop in crops) == 400


def test_a_squashed_image_is_the_whole_one_and_draws_nothing():
    rng = np.random.default_rng(0)
    assert draw_crop(30, 70, DataConfig(crop_mode="squash"), rng) == Crop(0, 0, 70, 30)
    assert rng.random() == np.random.default_rng(0).random()


def test_crop_that_cannot_be_large_enough_is_the_whole_image():
    crop = draw_crop(10, 1000, DataConfig(crop_area=(0.5, 1.0)), np.random.default_rng(0))
    assert crop == Crop(0, 0, 1000, 10)


@pytest.mark.parametrize(("name", "flag"), [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)])
def test_resize_without_antialias_is_opencvs(picture, name, flag):
    image = picture(50, 70)
    got = resized(image, Crop(5, 6, 40, 30), 16, interpolation=name, antialias=False)
    assert np.array_equal(
        got, cv2.resize(np.ascontiguousarray(image[6:36, 5:45]), (16, 16), interpolation=flag)
    )


def test_bilinear_without_antialias_has_half_pixel_centres():
    image = np.repeat(np.arange(0, 80, 10, dtype=np.uint8)[None, :, None], 8, axis=0).repeat(3, axis=2)
    got = resized(image, Crop(0, 0, 8, 8), 4, interpolation="bilinear", antialias=False)
    assert got[0, :, 0].tolist() == [5, 25, 45, 65]


def test_resize_with_antialias_is_pillows(picture):
    image = picture(50, 70)
    got = resized(image, Crop(5.25, 6.5, 40, 30), 16, interpolation="bicubic", antialias=True)
    expected = Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC, box=(5.25, 6.5, 45.25, 36.5))
    assert np.array_equal(got, np.asarray(expected))


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [7, 16, 60])
def test_resize_of_whole_pixels_is_pillows_to_a_level(picture, name, size):
    image = picture(50, 70)
    flag = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[name]
    got = resized(image, Crop(5, 6, 40, 30), size, interpolation=name, antialias=True)
    expected = Image.fromarray(image).crop((5, 6, 45, 36)).resize((size, size), flag)
    assert np.abs(got.astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("antialias", [False, True])
def test_turned_pixels_are_resized_as_a_copy_of_them(picture, antialias):
    turned = picture(50, 70).transpose(1, 0, 2)[::-1, ::-1]
    options = {"interpolation": "bilinear", "antialias": antialias}
    got = resized(turned, Crop(5, 6, 20, 30), 16, **options)
    assert np.array_equal(got, resized(np.ascontiguousarray(turned), Crop(5, 6, 20, 30), 16, **options))


def test_antialias_averages_what_plain_sampling_skips():
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    whole = Crop(0, 0, 64, 64)
    smooth = resized(checkers, whole, 7, interpolation="bilinear", antialias=True)
    plain = resized(checkers, whole, 7, interpolation="bilinear", antialias=False)
    assert np.ptp(smooth) < 20 < np.ptp(plain)


def test_center_crop_is_a_square_of_the_short_side():
    assert center_crop(100, 200, 0.5) == Crop(75, 25, 50, 50)


def test_center_crop_at_evaluation_is_resize_then_crop(picture, encode):
    encoded = encode(picture(256, 320), "PNG")
    preprocessing = Preprocessing(image_size=112, crop_fraction=0.875)
    resized = Image.open(io.BytesIO(encoded)).resize((160, 128), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((24, 8, 136, 120)))
    assert np.abs(eval_image(encoded, preprocessing).astype(int) - expected).max() <= 2


def test_squash_keeps_the_whole_image(encode):
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, :20, 0], image[:, 40:, 2] = 255, 255
    squashed = eval_image(encode(image, "PNG"), Preprocessing(image_size=30, crop_mode="squash"))
    assert squashed[15, 0].tolist() == [255, 0, 0]
    assert squashed[15, -1].tolist() == [0, 0, 255]
    centred = eval_image(encode(image, "PNG"), Preprocessing(image_size=30, crop_mode="center"))
    assert centred[15, 5:25].max() == 0


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_one_pixel_image_is_enlarged(encode, stage, antialias, mode):
    encoded = encode(np.full((1, 1, 3), 9, np.uint8), "PNG")
    preprocessing = Preprocessing(image_size=8, crop_fraction=0.875, crop_mode=mode, antialias=antialias)
    expected = np.full((8, 8, 3), 9)
    assert np.array_equal(eval_image(encoded, preprocessing), expected)
    view = view_of(
        encoded, stage(image_size=8), DataConfig(antialias=antialias), PLAIN, np.random.default_rng(0)
    )
    assert np.array_equal(view, expected)


def test_train_image_is_a_function_of_its_generator(picture, encode, stage):
    encoded = encode(picture(60, 80), "JPEG")
    views = [
        view_of(encoded, stage(), DataConfig(), AugmentConfig(policy="relative"), np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert views[0].shape == (16, 16, 3)
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_half_of_the_images_are_mirrored_unless_switched_off(stage):
    ramp = np.arange(16, dtype=np.uint8)[None, :, None].repeat(16, axis=0).repeat(3, axis=2)
    whole = DataConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0))
    upright = DataConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False)

    def mirrored(config):
        rng = np.random.default_rng(0)
        views = [view_of(ramp, stage(), config, PLAIN, rng) for _ in range(400)]
        assert all(np.array_equal(view, ramp) or np.array_equal(view, ramp[:, ::-1]) for view in views)
        return sum(not np.array_equal(view, ramp) for view in views)

    assert 150 < mirrored(whole) < 250
    assert mirrored(upright) == 0


def test_randaugment_gets_the_magnitude_of_the_stage(picture, stage, monkeypatch):
    seen = []
    monkeypatch.setattr(
        augment_module, "draw_randaugment", lambda size, magnitude, config, rng: seen.append(magnitude) or []
    )
    view_of(
        picture(20, 20),
        stage(randaugment_magnitude=8.25),
        DataConfig(),
        AugmentConfig(),
        np.random.default_rng(0),
    )
    assert seen == [8.25]
