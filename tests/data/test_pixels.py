import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageChops, ImageEnhance, ImageOps

from effnet.data import pixels

# Above 4, and at 1.3 and 2.35, OpenCV would not round as Pillow does.
FACTORS = [0.0, 0.1, 0.37, 0.55, 1.0, 1.3, 1.45, 1.9, 2.35, 2.8, 3.7, 5.5, 41.0]
ENHANCERS = {
    pixels.color: ImageEnhance.Color,
    pixels.contrast: ImageEnhance.Contrast,
    pixels.brightness: ImageEnhance.Brightness,
    pixels.sharpness: ImageEnhance.Sharpness,
}
images = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)), elements=st.integers(0, 255)
)


@pytest.fixture(params=["picture", "noise", "flat", "two levels", "strip"])
def image(request, picture):
    rng = np.random.default_rng(3)
    return {
        "picture": picture(64, 48),
        "noise": rng.integers(0, 256, (40, 41, 3), dtype=np.uint8),
        "flat": np.full((16, 16, 3), 77, np.uint8),
        "two levels": rng.choice(np.array([12, 200], np.uint8), (31, 17, 3)),
        "strip": rng.integers(0, 256, (1, 50, 3), dtype=np.uint8),
    }[request.param]


def _assert_equal(ours, theirs):
    assert np.array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("ours", ENHANCERS, ids=lambda function: function.__name__)
def test_enhancing_equals_pillow_bit_for_bit(image, ours, factor):
    _assert_equal(ours(image, factor), ENHANCERS[ours](Image.fromarray(image)).enhance(factor))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pixels.autocontrast, ImageOps.autocontrast),
        (pixels.equalize, ImageOps.equalize),
        (pixels.invert, ImageOps.invert),
    ],
)
def test_plain_operations_equal_pillow_bit_for_bit(image, ours, theirs):
    _assert_equal(ours(image), theirs(Image.fromarray(image)))


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_equals_pillow_bit_for_bit(image, bits):
    _assert_equal(pixels.posterize(image, bits), ImageOps.posterize(Image.fromarray(image), bits))


def test_posterize_is_defined_for_every_number_of_bits(image):
    _assert_equal(pixels.posterize(image, 0), pixels.posterize(image, 1))
    _assert_equal(pixels.posterize(image, 11), image)


@pytest.mark.parametrize("threshold", [0, 1, 128, 255, 256, 384])
def test_solarize_equals_pillow_bit_for_bit(image, threshold):
    _assert_equal(pixels.solarize(image, threshold), ImageOps.solarize(Image.fromarray(image), threshold))


@pytest.mark.parametrize("addition", [0, 55, 110, 220, 300])
def test_solarize_add_equals_pillow_bit_for_bit(image, addition):
    original = Image.fromarray(image)
    added = np.asarray(ImageChops.add(original, Image.new("RGB", original.size, (min(addition, 255),) * 3)))
    _assert_equal(pixels.solarize_add(image, addition), np.where(image < 128, added, image))


@settings(max_examples=60, deadline=None)
@given(image=images, factor=st.floats(0, 4, width=32))
def test_any_image_and_factor_equal_pillow(image, factor):
    original = Image.fromarray(image)
    for ours, theirs in ENHANCERS.items():
        _assert_equal(ours(image, factor), theirs(original).enhance(factor))
    _assert_equal(pixels.equalize(image), ImageOps.equalize(original))
    _assert_equal(pixels.autocontrast(image), ImageOps.autocontrast(original))


@pytest.mark.parametrize(("side", "grey"), [(128, 64), (192, 144), (224, 196), (256, 255), (300, 255)])
def test_released_contrast_blends_with_the_number_of_pixels(side, grey):
    image = np.full((side, side, 3), 100, np.uint8)
    assert (pixels.contrast_as_released(image, 0.0) == grey).all()
    expected = np.clip(np.float32(grey) + np.float32(1.9) * np.float32(100 - grey), 0, 255).astype(np.uint8)
    assert (pixels.contrast_as_released(image, 1.9) == expected).all()


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0.297, 0], [0, 1, 0]],
        [[1, -0.271, 0], [0, 1, 0]],
        [[1, 0, 0], [0.149, 1, 0]],
        [[1, 0, 7], [0, 1, 0]],
        [[1, 0, 0], [0, 1, -12]],
        [[0.92913, -0.36975, 14.20391], [0.36975, 0.92913, -9.10577]],
    ],
)
def test_affine_equals_pillows_nearest_transform_but_for_ties(picture, matrix):
    image = picture(60, 80)
    ours = pixels.affine(image, np.array(matrix, float))
    (a, b, c), (d, e, f) = matrix
    # Pillow counts from a pixel's corner, OpenCV (and TensorFlow) from its centre.
    coefficients = (a, b, c + 0.5 - (a + b) / 2, d, e, f + 0.5 - (d + e) / 2)
    theirs = Image.fromarray(image).transform(
        (80, 60), Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST, fillcolor=pixels.FILL
    )
    assert (ours != np.asarray(theirs)).any(axis=-1).mean() < 0.005


def test_cutout_is_a_square_clipped_at_the_border(picture):
    image = picture(20, 30)
    cut = pixels.cutout(image, 4, x=28, y=10)
    changed = np.zeros((20, 30), bool)
    changed[6:14, 24:30] = True
    assert (cut[changed] == 128).all()
    assert np.array_equal(cut[~changed], image[~changed])
    assert np.array_equal(image, picture(20, 30))
