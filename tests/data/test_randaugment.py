import itertools

import numpy as np
import pytest

from effnet.config import AugmentConfig
from effnet.data.augment import draw_operations
from effnet.data.operations import KINDS, Drawn, Operation, apply_operations
from effnet.data.randaugment import POLICIES, operation_argument

# fmt: off
RELEASE_ORDER = [
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color",
    "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY",
    "TranslateX", "TranslateY", "Cutout", "SolarizeAdd",
]
# fmt: on
SIGNED = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
ENHANCING = {"Color", "Contrast", "Brightness", "Sharpness"}


def _randaugment(image, magnitude, config, rng):
    return apply_operations(image, draw_operations(len(image), magnitude, config, rng))


def _argument(policy, name, magnitude, image_size=224, sign=1):
    return operation_argument(policy, name, magnitude, image_size, sign=sign)


# fmt: off
GOLDEN = {  # M:   5     10    15    20
    "Rotate":      (15,   30,   45,   60),
    "ShearX":      (0.15, 0.30, 0.45, 0.60),
    "ShearY":      (0.15, 0.30, 0.45, 0.60),
    "TranslateX":  (50,   100,  150,  200),
    "TranslateY":  (50,   100,  150,  200),
    "Cutout":      (20,   40,   60,   80),
    "Posterize":   (2,    4,    6,    8),
    "Solarize":    (128,  256,  384,  512),
    "SolarizeAdd": (55,   110,  165,  220),
    "Color":       (1.0,  1.9,  2.8,  3.7),
    "Contrast":    (1.0,  1.9,  2.8,  3.7),
    "Brightness":  (1.0,  1.9,  2.8,  3.7),
    "Sharpness":   (1.0,  1.9,  2.8,  3.7),
}
# fmt: on


@pytest.mark.parametrize("image_size", [128, 300])
@pytest.mark.parametrize(("name", "arguments"), GOLDEN.items())
def test_release_has_the_arithmetic_of_the_automl_code(name, arguments, image_size):
    got = [_argument("release", name, magnitude, image_size) for magnitude in (5, 10, 15, 20)]
    assert got == pytest.approx(arguments, rel=1e-12)


def test_release_draws_from_the_sixteen_operations():
    assert list(POLICIES["release"]) == RELEASE_ORDER
    assert list(POLICIES["relative"]) == RELEASE_ORDER


def test_paper_draws_from_fourteen_operations():
    assert set(POLICIES["paper"]) == {"Identity", *RELEASE_ORDER} - {"Invert", "Cutout", "SolarizeAdd"}
    assert len(POLICIES["paper"]) == 14


@pytest.mark.parametrize("name", ["Posterize", "Solarize", *ENHANCING])
@pytest.mark.parametrize("magnitude", [5, 10, 20])
def test_operations_of_the_release_that_do_nothing_do_nothing(picture, name, magnitude):
    idle = {"Posterize": magnitude >= 20, "Solarize": magnitude >= 10}.get(name, magnitude == 5)
    image = picture(40, 40)
    operation = POLICIES["release"][name]
    argument = operation.argument(magnitude / 10, 1, 40)
    assert np.array_equal(KINDS[operation.kind](image, argument, (0, 0)), image) is idle


@pytest.mark.parametrize("policy", POLICIES)
def test_only_motion_has_a_random_sign(policy):
    for name in POLICIES[policy]:
        plus, minus = _argument(policy, name, 7), _argument(policy, name, 7, sign=-1)
        if name in SIGNED:
            assert minus == -plus != 0
        elif policy == "paper" and name in ENHANCING:
            assert (plus, minus) == pytest.approx((1.63, 0.37))
        else:
            assert plus == minus


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", sorted(set(POLICIES["paper"]) - {"Identity", "AutoContrast", "Equalize"}))
def test_every_operation_of_the_paper_grows_with_the_magnitude(name, sign):
    neutral = {"Posterize": 8, "Solarize": 256} | dict.fromkeys(ENHANCING, 1)
    strengths = [
        abs(_argument("paper", name, magnitude / 2, sign=sign) - neutral.get(name, 0))
        for magnitude in range(61)
    ]
    assert strengths[0] == 0
    assert all(later >= earlier for earlier, later in itertools.pairwise(strengths))
    assert strengths[20] > strengths[10] > 0


def test_paper_reaches_the_ends_of_autoaugments_ranges_at_ten():
    ends = {"Rotate": 30, "ShearX": 0.3, "TranslateY": 70, "Posterize": 4, "Solarize": 0, "Color": 1.9}
    assert {name: _argument("paper", name, 10) for name in ends} == pytest.approx(ends)
    assert _argument("paper", "Posterize", 30) == 1
    assert _argument("paper", "Solarize", 30) == 0
    assert _argument("paper", "Brightness", 30, sign=-1) == 0.1


def test_paper_translates_by_150_px_of_480_at_ten():
    for name in ("TranslateX", "TranslateY"):
        assert [_argument("paper", name, 10, size) for size in (480, 32)] == pytest.approx([150, 10])
        assert _argument("paper", name, 5, 128, sign=-1) == pytest.approx(-20)


@pytest.mark.parametrize(("magnitude", "size"), [(5, 128), (15, 300), (20, 380), (25, 380), (31, 480)])
def test_paper_leaves_something_of_the_image_at_every_magnitude_of_the_papers(magnitude, size):
    for name in ("TranslateX", "TranslateY"):
        assert abs(_argument("paper", name, magnitude, size)) < size


def test_relative_scales_pixels_with_the_image():
    for name, at_224 in {"TranslateX": 100, "TranslateY": 100, "Cutout": 40}.items():
        assert [_argument("relative", name, 10, size) for size in (112, 224, 448)] == pytest.approx(
            [at_224 / 2, at_224, at_224 * 2]
        )
    for name in ("Posterize", "Solarize"):
        assert _argument("relative", name, 7) == _argument("paper", name, 7)
    for name in set(RELEASE_ORDER) - {"TranslateX", "TranslateY", "Cutout", "Posterize", "Solarize"}:
        assert _argument("relative", name, 7) == _argument("release", name, 7)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("magnitude", [0, 2.4, 8.333, 25, 40.5])
@pytest.mark.parametrize("size", [1, 2, 33])
def test_every_operation_works_at_any_magnitude_and_size(picture, policy, magnitude, size):
    image = picture(size, size)
    original = image.copy()
    for operation in POLICIES[policy].values():
        for sign in (-1, 1):
            argument = operation.argument(magnitude / 10, sign, size)
            result = KINDS[operation.kind](image, argument, (0, 0))
            assert (result.shape, result.dtype) == (image.shape, np.uint8)
    assert np.array_equal(image, original)


def test_translation_moves_whole_pixels_and_fills_with_grey(picture):
    image = picture(30, 30)
    moved = KINDS["TranslateX"](image, 10.0, (0, 0))
    assert np.array_equal(moved[:, :20], image[:, 10:])
    assert (moved[:, 20:] == 128).all()


def test_rotation_is_about_the_centre(picture):
    image = picture(31, 31)
    turned = KINDS["Rotate"](image, 90.0, (0, 0))
    assert np.array_equal(turned, np.rot90(image))


def test_operations_are_drawn_uniformly_with_replacement(monkeypatch):
    names = "abcdefgh"
    recorders = {name: Operation(name, lambda level, sign, size: sign) for name in names}
    monkeypatch.setitem(POLICIES, "release", recorders)
    rng = np.random.default_rng(5)
    images = [draw_operations(4, 5.0, AugmentConfig(operations=2), rng) for _ in range(2000)]
    assert {len(image) for image in images} == {2}
    assert len({(first.kind, second.kind) for first, second in images}) == len(names) ** 2
    drawn = list(itertools.chain.from_iterable(images))
    counts = [sum(one.kind == wanted for one in drawn) for wanted in names]
    assert max(abs(count - 500) for count in counts) < 5 * np.sqrt(500)
    assert abs(sum(one.argument for one in drawn)) < 5 * np.sqrt(4000)


def test_what_is_drawn_is_what_it_always_was():
    drawn = draw_operations(64, 7.0, AugmentConfig(operations=4), np.random.default_rng(37))
    assert drawn == [
        Drawn("Invert", 0.0, (0, 0)),
        Drawn("ShearY", pytest.approx(0.21), (0, 0)),
        Drawn("Cutout", 28, (44, 51)),
        Drawn("ContrastAsReleased", pytest.approx(1.36), (0, 0)),
    ]


def test_same_generator_same_pixels(picture):
    image = picture(40, 40)
    config = AugmentConfig(operations=3)
    first, second, other = (
        _randaugment(image, 9.0, config, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_no_operations_leave_the_image(picture):
    image = picture(8, 8)
    assert _randaugment(image, 10.0, AugmentConfig(operations=0), np.random.default_rng(0)) is image
