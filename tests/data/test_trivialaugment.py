from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from effnet.config import AugmentConfig
from effnet.data.augment import draw_operations
from effnet.data.operations import KINDS
from effnet.data.trivialaugment import STRENGTHS, WIDE, WIDE_RELATIVE

TRIVIAL = AugmentConfig(method="trivialaugment")

# fmt: off
GOLDEN = {  # Level:   0     10                 15                 30
    "Rotate":     (0,    45,                67,                135),
    "Solarize":   (256,  171,               128,               0),
    "Color":      (0.01, 0.01 + 1.99 / 3,   1.005,             2.0),
    "Posterize":  (8,    6,                 5,                 2),
    "Contrast":   (0.01, 0.01 + 1.99 / 3,   1.005,             2.0),
    "Brightness": (0.01, 0.01 + 1.99 / 3,   1.005,             2.0),
    "Sharpness":  (0.01, 0.01 + 1.99 / 3,   1.005,             2.0),
    "ShearX":     (0,    0.33,              0.495,             0.99),
    "ShearY":     (0,    0.33,              0.495,             0.99),
    "TranslateX": (0,    10,                16,                32),
    "TranslateY": (0,    10,                16,                32),
}
# fmt: on


@pytest.mark.parametrize(("name", "arguments"), GOLDEN.items())
def test_strengths_have_the_ranges_of_the_wide_space(name, arguments):
    assert [WIDE[name].argument(level, 1, 96) for level in (0, 10, 15, 30)] == pytest.approx(arguments)
    if name.startswith(("Rotate", "Shear", "Translate")):
        assert WIDE[name].argument(30, -1, 96) == -WIDE[name].argument(30, 1, 96)
    else:
        assert WIDE[name].argument(30, -1, 96) == WIDE[name].argument(30, 1, 96)


def test_there_are_14_operations():
    assert set(WIDE) == set(GOLDEN) | {"Identity", "AutoContrast", "Equalize"}
    assert len(WIDE) == 14
    assert list(WIDE_RELATIVE) == list(WIDE)


def test_relative_translates_by_a_share_of_the_image():
    assert [WIDE_RELATIVE["TranslateX"].argument(30, 1, size) for size in (112, 224)] == [16, 32]
    assert WIDE_RELATIVE["ShearX"] is WIDE["ShearX"]


PILLOW = {
    "Identity": lambda image, level: image,
    "AutoContrast": lambda image, level: ImageOps.autocontrast(image),
    "Equalize": lambda image, level: ImageOps.equalize(image),
    "Solarize": lambda image, level: ImageOps.solarize(image, 256 - level * 256 // 30),
    "Posterize": lambda image, level: ImageOps.posterize(image, 8 - level // 5),
    "Color": lambda image, level: ImageEnhance.Color(image).enhance(0.01 + 1.99 * level / 30),
    "Contrast": lambda image, level: ImageEnhance.Contrast(image).enhance(0.01 + 1.99 * level / 30),
    "Brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(0.01 + 1.99 * level / 30),
    "Sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(0.01 + 1.99 * level / 30),
}


@pytest.mark.parametrize("name", PILLOW)
def test_operations_equal_pillow_bit_for_bit_at_every_strength(picture, name):
    image = picture(20, 24)
    for level in range(STRENGTHS):
        ours = KINDS[WIDE[name].kind](image, WIDE[name].argument(level, 1, 20), (0, 0))
        assert np.array_equal(ours, np.asarray(PILLOW[name](Image.fromarray(image), level))), level


def test_one_operation_is_drawn_uniformly_with_a_uniform_strength():
    images = 14 * 31 * 12
    rng = np.random.default_rng(1)
    drawn = [draw_operations(64, 0.0, TRIVIAL, rng) for _ in range(images)]
    assert {len(operations) for operations in drawn} == {1}
    kinds = Counter(operations[0].kind for operations in drawn)
    assert set(kinds) == {operation.kind for operation in WIDE.values()}
    expected = images / len(WIDE)
    assert max(abs(count - expected) for count in kinds.values()) < 5 * np.sqrt(expected)
    shears = Counter(round(one.argument * 30 / 0.99) for (one,) in drawn if one.kind == "ShearX")
    assert set(shears) == set(range(-30, 31))
    assert max(abs(shears[level] + shears[-level] - 12) for level in range(1, 31)) < 5 * np.sqrt(12)
