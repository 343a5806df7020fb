"""Changes of whole batches on a device, against the same changes one by one."""

import cv2
import numpy as np
import pytest
import torch

from effnet.config import AugmentConfig, DataConfig
from effnet.data.augment import PATCHES, change, draw_view
from effnet.data.autoaugment import operation as autoaugment_operation
from effnet.data.autoaugment import sub_policies
from effnet.data.device_augment import augment_images
from effnet.data.drawn_views import DrawnViews
from effnet.data.images import LabelledImages
from effnet.data.loader import train_batches
from effnet.data.operations import KINDS, MATRICES
from effnet.data.randaugment import POLICIES
from effnet.data.trivialaugment import WIDE, WIDE_RELATIVE

MAGNITUDES = (0.0, 2.4, 8.333, 10.0, 40.5)
SIZES = (1, 2, 3, 33, 64)
# Share of the pixels that rotation and shear may look up at a neighbour's place, by OpenCV's version.
MOVED_OTHERWISE = 2e-5 if int(cv2.__version__.partition(".")[0]) >= 5 else 2e-3


AUGMENTS = [
    *(AugmentConfig(policy=policy, operations=3) for policy in POLICIES),
    *(AugmentConfig(method="autoaugment", policy=policy) for policy in POLICIES),
    AugmentConfig(method="randaugment_or_autoaugment", policy="relative", operations=3),
    AugmentConfig(method="trivialaugment", cutout=0.25),
    AugmentConfig(method="trivialaugment", policy="relative"),
]


@pytest.fixture
def pictures(picture):
    """Pictures that have all kinds of histograms: smooth ones, few levels, one level, noise."""

    def make(size: int) -> np.ndarray:
        rng = np.random.default_rng(size)
        noise = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        return np.stack(
            [picture(size, size, 1), picture(size, size, 2) // 3 + 50, noise, noise // 64 * 70, noise * 0 + 9]
        )

    return make


def _place_of(kind):
    return list(KINDS).index(kind)


def _drawn(operation, strength, size, count):
    """The same operation for each image, but of either sign and with places all over."""
    rng = np.random.default_rng(size)
    arguments = [operation.argument(strength, sign, size) for sign in (1, -1)]
    return DrawnViews(
        is_mirrored=np.zeros(count, bool),
        operations=np.full((count, 1), _place_of(operation.kind), np.int64),
        arguments=np.array([[float(arguments[row % 2])] for row in range(count)]),
        places=rng.integers(0, size, (count, 1, 2)),
        patches=np.zeros((count, PATCHES, 6), np.int64),
    )


def _operations():
    """Yield every operation of every method, and its strengths."""
    levels = [magnitude / 10 for magnitude in MAGNITUDES]
    for policy, operations in POLICIES.items():
        for name, operation in operations.items():
            yield pytest.param(operation, levels, id=f"randaugment-{policy}-{name}")
        for name in sorted({chance.name for row in sub_policies(policy) for chance in row}):
            yield pytest.param(
                autoaugment_operation(policy, name),
                [0.0, 0.2, 0.7, 0.9, 1.0],
                id=f"autoaugment-{policy}-{name}",
            )
    for name, operation in (*WIDE.items(), *WIDE_RELATIVE.items()):
        yield pytest.param(operation, [0, 1, 11, 23, 29], id=f"trivialaugment-{name}")


@pytest.mark.parametrize(("operation", "strengths"), list(_operations()))
def test_each_operation_is_that_of_the_workers(pictures, operation, strengths):
    different, looked_up = 0, 0
    for size in SIZES:
        for strength in strengths:
            images = pictures(size)
            drawn = _drawn(operation, strength, size, len(images))
            one_by_one = np.stack(
                [
                    KINDS[operation.kind](image, argument, tuple(place))
                    for image, argument, place in zip(
                        images, drawn.arguments[:, 0].tolist(), drawn.places[:, 0].tolist(), strict=True
                    )
                ]
            )
            together = augment_images(torch.from_numpy(images), drawn).numpy()
            if operation.kind in MATRICES:
                different += (together != one_by_one).any(-1).sum()
                looked_up += together[..., 0].size
            else:
                assert np.array_equal(together, one_by_one), (size, strength)
    assert different <= MOVED_OTHERWISE * looked_up


@pytest.mark.parametrize("augment", AUGMENTS, ids=lambda augment: f"{augment.method}-{augment.policy}")
@pytest.mark.parametrize("flip", [False, True])
def test_batches_are_what_the_workers_make_of_the_same_random_numbers(pictures, stage, augment, flip):
    images = np.concatenate([pictures(33)] * 12)
    settings = stage(image_size=33, randaugment_magnitude=9.0, erasing_probability=0.4)
    config = DataConfig(flip=flip)
    drawn = DrawnViews.empty(len(images), augment)
    one_by_one = images.copy()
    for row in range(len(images)):
        rng = np.random.default_rng(row)
        view = draw_view(settings, flip=config.flip, augment=augment, rng=rng)
        drawn.note(row, view)
        change(one_by_one[row], view)
    pixels = torch.from_numpy(images)
    before = pixels.clone()
    together = augment_images(pixels, drawn).numpy()
    assert torch.equal(pixels, before)
    assert (together != images).any((1, 2, 3)).mean() > 0.6
    # Operations behind a rotation spread what it picked otherwise.
    assert (together != one_by_one).any(-1).mean() < 2 * MOVED_OTHERWISE
    assert drawn.is_mirrored.any() == flip


def test_no_operation_and_no_mirror_leave_the_images(pictures, stage):
    images = torch.from_numpy(pictures(8))
    drawn = DrawnViews.empty(len(images), AugmentConfig(operations=0))
    assert torch.equal(augment_images(images, drawn), images)


def test_an_image_is_changed_by_its_own_draws_only(pictures):
    images = pictures(16)
    drawn = _drawn(POLICIES["paper"]["Solarize"], 0.5, 16, len(images))
    drawn.operations[1:] = _place_of("Identity")
    changed = augment_images(torch.from_numpy(images), drawn).numpy()
    assert not np.array_equal(changed[0], images[0])
    assert np.array_equal(changed[1:], images[1:])


def test_operations_follow_each_other_in_the_order_of_their_draw(pictures):
    orders = [("Invert", "Rotate"), ("Rotate", "Invert"), ("Cutout", "Invert"), ("Invert", "Cutout")]
    images = np.stack([pictures(16)[0]] * len(orders))
    drawn = DrawnViews(
        is_mirrored=np.zeros(len(orders), bool),
        operations=np.array([[_place_of(name) for name in order] for order in orders]),
        arguments=np.array([[4.0, 4.0]] * len(orders)),
        places=np.full((len(orders), 2, 2), 8),
        patches=np.zeros((len(orders), PATCHES, 6), np.int64),
    )
    together = augment_images(torch.from_numpy(images), drawn).numpy()
    for image, order in zip(together, orders, strict=True):
        expected = images[0]
        for name in order:
            expected = KINDS[name](expected, 4.0, (8, 8))
        assert np.array_equal(image, expected), order
    # The grey that moves in is inverted by one order and not by the other; so it is with cutout's.
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(together[2], together[3])


def _batches(pictures, schedule, place, *, workers=2, start_step=0):
    images = LabelledImages(
        class_names=("a", "b"),
        labels=np.arange(5, dtype=np.int64) % 2,
        names=tuple("01234"),
        read=lambda index: pictures(40)[index],
    )
    augment = AugmentConfig(policy="relative", place=place, cutout=0.2, repeats=2)
    data = DataConfig(workers=workers)
    return list(train_batches(images, schedule, data, augment, seed=3, start_step=start_step))


def test_a_run_sees_the_same_views_wherever_they_are_made(pictures, two_stages):
    by_workers, on_device = (_batches(pictures, two_stages(5), place) for place in ("worker", "device"))
    assert len(by_workers) == len(on_device) == 7
    is_changed = []
    for ready, raw in zip(by_workers, on_device, strict=True):
        assert ready.drawn is None
        assert torch.equal(ready.labels, raw.labels)
        views = augment_images(raw.images, raw.drawn)
        is_changed += (views != raw.images).flatten(1).any(1).tolist()
        assert (views != ready.images).any(-1).float().mean() <= MOVED_OTHERWISE
    assert np.mean(is_changed) > 0.7


@pytest.mark.parametrize(("workers", "start_step"), [(1, 0), (4, 5)])
def test_what_is_drawn_depends_on_neither_threads_nor_resuming(pictures, two_stages, workers, start_step):
    whole = _batches(pictures, two_stages(5), "device")[start_step:]
    again = _batches(pictures, two_stages(5), "device", workers=workers, start_step=start_step)
    assert len(whole) == len(again) > 0
    for one, other in zip(whole, again, strict=True):
        assert torch.equal(one.images, other.images)
        for field in ("is_mirrored", "operations", "arguments", "places", "patches"):
            assert np.array_equal(getattr(one.drawn, field), getattr(other.drawn, field))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("augment", AUGMENTS, ids=lambda augment: f"{augment.method}-{augment.policy}")
def test_a_gpu_makes_what_a_processor_makes(pictures, stage, augment):
    images = torch.from_numpy(np.concatenate([pictures(33)] * 12))
    config = DataConfig()
    drawn = DrawnViews.empty(len(images), augment)
    settings = stage(image_size=33, randaugment_magnitude=9.0, erasing_probability=0.4)
    for row in range(len(images)):
        rng = np.random.default_rng(row)
        drawn.note(row, draw_view(settings, flip=config.flip, augment=augment, rng=rng))
    on_gpu = augment_images(images.cuda(), drawn)
    assert on_gpu.device.type == "cuda"
    assert torch.equal(on_gpu.cpu(), augment_images(images, drawn))
