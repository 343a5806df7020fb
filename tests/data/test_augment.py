from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.config import AugmentConfig
from effnet.data.augment import change, describe, draw_operations, draw_view, most_operations
from effnet.data.autoaugment import draw_autoaugment
from effnet.data.patches import Patch
from effnet.data.randaugment import draw_randaugment

METHODS = ["randaugment", "autoaugment", "randaugment_or_autoaugment", "trivialaugment"]
PLAIN = AugmentConfig(operations=0)


@given(
    augment=st.builds(
        AugmentConfig,
        method=st.sampled_from(METHODS),
        policy=st.sampled_from(["release", "paper", "relative"]),
        operations=st.integers(0, 4),
        cutout=st.sampled_from([0.0, 0.25, 1.0]),
    ),
    size=st.integers(1, 40),
    magnitude=st.floats(0, 40),
    erasing=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**32),
)
def test_a_view_is_a_function_of_its_generator(picture, stage, *, augment, size, magnitude, erasing, seed):
    settings = stage(image_size=size, randaugment_magnitude=magnitude, erasing_probability=erasing)
    views = [
        draw_view(settings, flip=True, augment=augment, rng=np.random.default_rng(seed)) for _ in range(2)
    ]
    assert views[0] == views[1]
    assert len(views[0].operations) <= most_operations(augment)
    images = [picture(size, size), picture(size, size)]
    for image, view in zip(images, views, strict=True):
        change(image, view)
    assert np.array_equal(*images)


def test_nothing_is_drawn_for_what_is_switched_off(stage):
    rng = np.random.default_rng(0)
    view = draw_view(stage(), flip=False, augment=PLAIN, rng=rng)
    assert not view.is_mirrored
    assert view.operations == []
    assert rng.random() == np.random.default_rng(0).random()


def test_erasing_has_the_probability_of_the_stage(stage):
    settings = stage(image_size=32, erasing_probability=0.5)
    views = [
        draw_view(settings, flip=False, augment=PLAIN, rng=np.random.default_rng(seed)) for seed in range(400)
    ]
    erased = sum(view.patches[1].right > 0 for view in views)
    assert abs(erased - 200) < 5 * np.sqrt(100)
    assert {view.patches[0] for view in views} == {Patch()}


@pytest.mark.parametrize(
    ("augment", "erasing", "text"),
    [
        (AugmentConfig(), 0.0, "RandAugment 7.5"),
        (PLAIN, 0.25, "no RandAugment\nerasing 0.25"),
        (AugmentConfig(method="autoaugment", cutout=0.25), 0.2, "AutoAugment\nCutout 0.25\nerasing 0.2"),
        (AugmentConfig(method="trivialaugment"), 0.1, "TrivialAugment\nerasing 0.1"),
        (AugmentConfig(method="randaugment_or_autoaugment"), 0.0, "RandAugment 7.5\nor AutoAugment"),
    ],
)
def test_the_method_is_named(stage, augment, erasing, text):
    assert describe(stage(randaugment_magnitude=7.5, erasing_probability=erasing), augment) == text


def test_one_of_two_methods_is_drawn_for_each_image():
    config = AugmentConfig(method="randaugment_or_autoaugment", operations=3)
    drawn = Counter()
    for seed in range(600):
        operations = draw_operations(64, 9.0, config, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        if rng.random() < 0.5:
            assert operations == draw_randaugment(64, 9.0, config, rng)
            drawn["randaugment"] += 1
        else:
            assert operations == draw_autoaugment(64, "release", rng)
            drawn["autoaugment"] += 1
    assert abs(drawn["randaugment"] - 300) < 5 * np.sqrt(150)
    assert most_operations(config) == 3


def test_a_view_is_mirrored_before_its_operations_and_covered_behind_them(picture, stage):
    augment = AugmentConfig(method="trivialaugment", cutout=0.5)
    settings = stage(image_size=24)
    for seed in range(200):
        view = draw_view(settings, flip=True, augment=augment, rng=np.random.default_rng(seed))
        if view.is_mirrored and view.operations[0].kind == "TranslateX" and view.operations[0].argument > 4:
            break
    else:
        pytest.fail("no such view was drawn")
    image = picture(24, 24)
    change(image, view)
    distance, patch = int(view.operations[0].argument), view.patches[0]
    expected = np.full((24, 24, 3), 128, np.uint8)
    expected[:, : 24 - distance] = picture(24, 24)[:, ::-1][:, distance:]
    covered = np.zeros((24, 24), bool)
    covered[patch.top : patch.bottom, patch.left : patch.right] = True
    assert np.array_equal(image[~covered], expected[~covered])
    assert covered.any()
    assert image[covered].min() >= 128
    assert len(np.unique(image[covered])) > 20
