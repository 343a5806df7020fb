import numpy as np
import pytest

from effnet.config import AugmentConfig, DataConfig
from effnet.data.augment import draw_view
from effnet.data.batch_draws import draw_batch, draw_crops
from effnet.data.crops import Crop, draw_crop
from effnet.data.drawn_views import KIND_PLACES, DrawnViews
from effnet.data.order import sample_random, step_random
from effnet.schedule.progressive import StageSettings

IMAGES = 4000


def settings(**values):
    given = {
        "stage": 0,
        "start_step": 0,
        "end_step": 10,
        "image_size": 24,
        "batch_size": IMAGES,
        "randaugment_magnitude": 7.0,
        "mixup_alpha": 0.0,
        "cutmix_alpha": 0.0,
        "dropout_rate": 0.0,
        "drop_path_rate": 0.0,
    }
    return StageSettings(**(given | values))


def drawn(stage, data=None, augment=None, *, size=(32, 40), seed=0):
    data, augment = data or DataConfig(), augment or AugmentConfig(policy="relative")
    return draw_batch(stage, *size, data=data, augment=augment, rng=step_random(seed, 3))


def one_by_one(stage, augment):
    views = DrawnViews.empty(IMAGES, augment)
    for row in range(IMAGES):
        rng = sample_random(0, row)
        views.note(row, draw_view(stage, flip=True, augment=augment, rng=rng))
    return views


def shares(values):
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), (counts / counts.sum()).tolist(), strict=True))


@pytest.mark.parametrize("area", [(0.05, 1.0), (0.35, 1.0), (0.9, 0.95)])
def test_crops_are_distributed_as_those_that_are_drawn_one_by_one(area):
    config = DataConfig(crop_area=area)
    together = draw_crops(IMAGES, 32, 40, config, step_random(0, 0))
    alone = np.array([draw_crop(32, 40, config, sample_random(0, row)) for row in range(IMAGES)])
    deviation = alone.std(0) / np.sqrt(IMAGES)
    assert (np.abs(together.mean(0) - alone.mean(0)) < 5 * deviation + 1e-9).all()
    assert np.allclose(together.std(0), alone.std(0), rtol=0.08, atol=0.05)
    assert (together[:, 2:] >= 1).all()
    assert (together[:, :2] >= 0).all()
    assert (together[:, :2] + together[:, 2:] <= [40, 32]).all()


def test_where_no_crop_is_large_enough_the_whole_image_is_taken():
    config = DataConfig(crop_area=(1.0, 1.0), crop_aspect=(3.0, 4.0))
    assert (draw_crops(5, 32, 40, config, step_random(0, 0)) == [0, 0, 40, 32]).all()
    squashed = DataConfig(crop_mode="squash")
    assert (draw_crops(5, 32, 40, squashed, step_random(0, 0)) == [0, 0, 40, 32]).all()


@pytest.mark.parametrize("policy", ["release", "paper", "relative"])
def test_operations_are_distributed_as_those_that_are_drawn_one_by_one(policy):
    stage, augment = settings(), AugmentConfig(policy=policy)
    together, alone = drawn(stage, augment=augment).views, one_by_one(stage, augment)
    for name in ("operations", "is_mirrored"):
        assert shares(getattr(together, name)) == pytest.approx(shares(getattr(alone, name)), abs=0.02)
    pairs = [
        set(zip(views.operations.ravel().tolist(), views.arguments.ravel().tolist(), strict=True))
        for views in (together, alone)
    ]
    assert pairs[0] == pairs[1]


def test_only_cutout_has_a_place():
    views = drawn(settings()).views
    is_cutout = views.operations == KIND_PLACES["Cutout"]
    assert not views.places[~is_cutout].any()
    assert shares(views.places[is_cutout]).keys() == set(range(24))


def test_what_is_switched_off_is_not_drawn():
    views = drawn(settings(), DataConfig(flip=False), AugmentConfig(operations=0)).views
    assert not views.is_mirrored.any()
    assert views.operations.shape == (IMAGES, 0)


@pytest.mark.parametrize(
    ("augment", "stage"),
    [
        (AugmentConfig(method="autoaugment"), {}),
        (AugmentConfig(method="trivialaugment"), {}),
        (AugmentConfig(cutout=0.25), {}),
        (AugmentConfig(), {"erasing_probability": 0.5}),
    ],
)
def test_other_methods_and_patches_are_drawn_too(augment, stage):
    views = drawn(settings(batch_size=100, **stage), augment=augment).views
    assert views.operations.any()
    assert views.patches.any() == bool(augment.cutout or stage)


def test_boxes_are_the_crops_in_whole_pixels_of_a_smaller_copy():
    batch = drawn(settings(batch_size=300))
    boxes = batch.boxes(15, 21)
    for crop, box in zip(batch.crops.tolist(), boxes.tolist(), strict=True):
        tall, wide = Crop(*crop).scaled(21 / 40, 15 / 32).rounded(15, 21)
        assert box == [tall.start, wide.start, tall.stop - tall.start, wide.stop - wide.start]


def test_draws_are_a_function_of_seed_and_step():
    first, again, other = (drawn(settings(batch_size=50), seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.crops, again.crops)
    assert np.array_equal(first.views.arguments, again.views.arguments)
    assert not np.array_equal(first.crops, other.crops)
    assert step_random(0, 3).random() != sample_random(0, 3).random()
