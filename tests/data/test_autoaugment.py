import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageEnhance, ImageOps

from effnet.config import AugmentConfig
from effnet.data.augment import draw_operations
from effnet.data.autoaugment import OPERATIONS, operation, sub_policies
from effnet.data.operations import KINDS, Drawn
from effnet.data.randaugment import POLICIES

AUTOAUGMENT = AugmentConfig(method="autoaugment")
SIGNED = {"Rotate", "ShearX", "ShearY", "TranslateY"}


def _argument(policy, name, level, size=224, sign=1):
    return operation(policy, name).argument(level / 10, sign, size)


# fmt: off
GOLDEN = {  # Level:  0    2     4     7     9     10
    "Rotate":      (0,   6,    12,   21,   27,   30),
    "ShearX":      (0,   0.06, 0.12, 0.21, 0.27, 0.3),
    "ShearY":      (0,   0.06, 0.12, 0.21, 0.27, 0.3),
    "TranslateY":  (0,   50,   100,  175,  225,  250),
    "Posterize":   (0,   0,    1,    2,    3,    4),
    "Solarize":    (0,   51,   102,  179,  230,  256),
    "SolarizeAdd": (0,   22,   44,   77,   99,   110),
    "Color":       (0.1, 0.46, 0.82, 1.36, 1.72, 1.9),
}
# fmt: on


@pytest.mark.parametrize(("name", "arguments"), GOLDEN.items())
def test_levels_have_the_arithmetic_of_the_release(name, arguments):
    got = [_argument("release", name, level) for level in (0, 2, 4, 7, 9, 10)]
    assert got == pytest.approx(arguments, rel=1e-12)
    if name in SIGNED:
        assert _argument("release", name, 7, sign=-1) == -_argument("release", name, 7)


def test_release_translates_by_pixels_of_any_image_and_relative_by_a_share():
    assert [_argument("release", "TranslateY", 9, size) for size in (128, 600)] == [225, 225]
    assert [_argument("relative", "TranslateY", 9, size) for size in (112, 224)] == [45, 90]
    for name in set(GOLDEN) - {"TranslateY"}:
        assert _argument("relative", name, 7) == _argument("release", name, 7)
    assert sub_policies("relative") == sub_policies("release")


def test_levels_of_the_paper_lie_between_the_ends_of_its_ranges():
    ends = {"Rotate": (0, 30), "ShearX": (0, 0.3), "Posterize": (4, 8), "Solarize": (0, 256)}
    ends |= dict.fromkeys(("Color", "Contrast", "Sharpness"), (0.1, 1.9))
    for name, (low, high) in ends.items():
        assert (_argument("paper", name, 0), _argument("paper", name, 10)) == pytest.approx((low, high))
        assert low < _argument("paper", name, 5) < high


@pytest.mark.parametrize("policy", POLICIES)
def test_there_are_25_sub_policies_of_operations_that_exist(policy):
    rows = sub_policies(policy)
    assert len(rows) == 25
    for chance in itertools.chain.from_iterable(rows):
        assert 0 <= chance.probability <= 1
        assert 0 <= chance.level <= 10
        assert operation(policy, chance.name).kind in KINDS
    assert {len(row) for row in rows} == {OPERATIONS}


def test_operations_come_as_often_as_in_the_tables():
    counts = {
        policy: Counter(chance.name for row in sub_policies(policy) for chance in row)
        for policy in ("release", "paper")
    }
    # fmt: off
    assert counts["release"] == {
        "Equalize": 12, "Color": 9, "Solarize": 8, "Rotate": 7, "ShearY": 4, "ShearX": 2, "SolarizeAdd": 2,
        "Posterize": 2, "AutoContrast": 2, "TranslateY": 1, "Invert": 1,
    }
    assert counts["paper"] == {
        "Equalize": 17, "Color": 6, "Solarize": 7, "Rotate": 6, "Posterize": 5, "Invert": 3, "Contrast": 2,
        "AutoContrast": 2, "Sharpness": 1, "ShearX": 1,
    }
    # fmt: on
    assert len(set(sub_policies("paper"))) == 20  # Five rows of table 9 come twice.


# Pillow's own operations, by level.
PILLOW = {
    "AutoContrast": lambda image, level: ImageOps.autocontrast(image),
    "Equalize": lambda image, level: ImageOps.equalize(image),
    "Invert": lambda image, level: ImageOps.invert(image),
    "Solarize": lambda image, level: ImageOps.solarize(image, int(level * 25.6)),
    "SolarizeAdd": lambda image, level: Image.composite(
        ImageChops.add(image, Image.new("RGB", image.size, (int(level * 11),) * 3)), image, _below_128(image)
    ),
    "Color": lambda image, level: ImageEnhance.Color(image).enhance(0.1 + 0.18 * level),
    "Contrast": lambda image, level: ImageEnhance.Contrast(image).enhance(0.1 + 0.18 * level),
    "Sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(0.1 + 0.18 * level),
}
POSTERIZE = {
    # TensorFlow shifts by 8 bits as by 7.
    "release": lambda image, level: ImageOps.posterize(image, max(int(0.4 * level), 1)),
    "paper": lambda image, level: ImageOps.posterize(image, 4 + int(0.4 * level)),
}


def _below_128(image):
    return Image.merge("RGB", [band.point(lambda v: 255 * (v < 128)) for band in image.split()]).convert("L")


@pytest.mark.parametrize("policy", POSTERIZE)
def test_every_operation_at_its_levels_equals_pillow_bit_for_bit(picture, policy):
    grey = picture(40, 48)[..., :1].repeat(3, axis=2)  # Pillow's composite has one mask for all channels.
    checked = set()
    for name, _, level in set(itertools.chain.from_iterable(sub_policies(policy))):
        if name in SIGNED:
            continue
        image = grey if name == "SolarizeAdd" else picture(40, 48)
        transcribed = POSTERIZE[policy] if name == "Posterize" else PILLOW[name]
        chosen = operation(policy, name)
        ours = KINDS[chosen.kind](image, chosen.argument(level / 10, 1, 40), (0, 0))
        assert np.array_equal(ours, np.asarray(transcribed(Image.fromarray(image), level))), (name, level)
        checked.add(name)
    assert len(checked) == {"release": 7, "paper": 8}[policy]


@pytest.mark.parametrize("policy", POLICIES)
def test_each_sub_policy_is_drawn_with_1_in_25_and_its_operations_with_their_probabilities(
    policy, monkeypatch
):
    images = 25 * 150
    rows = sub_policies(policy)
    config = AugmentConfig(method="autoaugment", policy=policy)
    rng = np.random.default_rng(0)
    drawn = Counter(
        tuple((one.kind, abs(one.argument)) for one in draw_operations(224, 0.0, config, rng))
        for _ in range(images)
    )
    expected = Counter()
    for row in rows:
        for applied in itertools.product((False, True), repeat=2):
            chance, outcome = 1 / len(rows), []
            for (name, probability, level), is_applied in zip(row, applied, strict=True):
                chance *= probability if is_applied else 1 - probability
                if is_applied:
                    chosen = operation(policy, name)
                    outcome.append((chosen.kind, abs(chosen.argument(level / 10, 1, 224))))
            expected[tuple(outcome)] += chance
    assert sum(expected.values()) == pytest.approx(1)
    assert set(drawn) <= {outcome for outcome, chance in expected.items() if chance}
    for outcome, chance in expected.items():
        assert abs(drawn[outcome] - images * chance) <= 5 * np.sqrt(images * chance) + 1e-9


def test_both_signs_are_drawn():
    rng = np.random.default_rng(0)
    images = [draw_operations(224, 0.0, AUTOAUGMENT, rng) for _ in range(2000)]
    signs = [np.sign(one.argument) for image in images for one in image if one.kind == "Rotate"]
    turned = [sign for sign in signs if sign]
    assert abs(sum(turned)) < 5 * np.sqrt(len(turned))


def test_magnitude_and_number_of_operations_do_not_matter():
    draws = [
        [draw_operations(64, magnitude, config, np.random.default_rng(seed)) for seed in range(50)]
        for magnitude, config in [
            (0.0, AUTOAUGMENT),
            (20.0, AUTOAUGMENT),
            (5.0, AugmentConfig(method="autoaugment", operations=0)),
        ]
    ]
    assert draws[0] == draws[1] == draws[2]
    assert isinstance(draws[0][0][0], Drawn)
