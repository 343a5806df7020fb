from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.config import AugmentConfig, Config, DataConfig, ModelConfig, ProgressiveConfig, TrainConfig
from effnet.data.decode import decode_image
from effnet.data.mixing import mix_batch
from effnet.data.order import sample_order, sample_random
from effnet.data.transforms import train_image
from effnet.training.experiment import prepare_experiment
from effnet.training.step import step_seed
from effnet.training.views import draw_views, stage_views


@pytest.fixture
def photos(tmp_path):
    """Ten photos of two classes, each of one colour that no other one has."""
    for index in range(10):
        path = tmp_path / "photos" / ("cat" if index < 5 else "dog") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), (20 * index, 200 - 20 * index, 90), np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def experiment(photos):
    """Prepare a run without RandAugment: ``experiment(mixup_alpha=(0.0, 1.0))``."""

    def make(**progressive):
        values = {"stages": 3, "image_size": (16, 32)} | progressive
        return prepare_experiment(
            Config(
                model=ModelConfig(network="v2-b0", width=0.25, depth=0.25),
                data=DataConfig(source=str(photos)),
                augment=AugmentConfig(operations=0),
                progressive=ProgressiveConfig(**values),
                train=TrainConfig(epochs=4, batch_size=2, device="cpu"),
            )
        )

    return make


def colors(images):
    return np.stack([decode_image(images.read(index))[0, 0] for index in range(len(images))]).astype(float)


def test_photos_keep_their_order_in_every_stage(experiment):
    run = experiment()
    rows = list(stage_views(run, run.data.train))
    assert [row.images.shape for row in rows] == [(8, 16, 16, 3), (8, 24, 24, 3), (8, 32, 32, 3)]
    for row in rows:
        assert (row.images == colors(run.data.train)[:, None, None]).all()
        assert (row.targets == np.eye(8)).all()


def test_repeated_augmentation_shows_each_photo_once(experiment):
    run = experiment()
    augment = replace(run.config.augment, repeats=3)
    run = replace(run, config=replace(run.config, augment=augment))
    for row in stage_views(run, run.data.train):
        assert (row.images == colors(run.data.train)[:, None, None]).all()


def test_photos_in_memory_are_shown_where_a_run_has_processes(experiment):
    run = experiment()
    config = replace(run.config, data=replace(run.config.data, worker_kind="processes"))
    photos = replace(run.data.train, read=lambda index: run.data.train.read(7 - index))
    for row in stage_views(replace(run, config=config), photos):
        assert (row.images == colors(photos)[:, None, None]).all()


def test_settings_are_those_of_the_stages(experiment):
    run = experiment(dropout_rate=(0.1, 0.3), randaugment_magnitude=(2.0, 8.0), mixup_alpha=(0.0, 0.5))
    shown = ("stage", "image_size", "randaugment_magnitude", "mixup_alpha", "cutmix_alpha", "dropout_rate")
    for row, stage in zip(stage_views(run, run.data.train), run.schedule.stages, strict=True):
        assert [getattr(row.settings, name) for name in shown] == [getattr(stage, name) for name in shown]


def test_mixup_is_seen_with_its_targets(experiment):
    run = experiment(mixup_alpha=(0.0, 5.0))
    first, *_, last = stage_views(run, run.data.train)
    assert (first.targets == np.eye(8)).all()
    assert ((last.targets > 0).sum(1) == 2).all()
    np.testing.assert_allclose(last.targets.sum(1), 1, rtol=1e-6)
    expected = last.targets @ colors(run.data.train)
    assert np.abs(last.images - expected[:, None, None]).max() <= 0.51


def test_what_is_mixed_is_drawn_as_in_the_step(experiment):
    run = experiment(mixup_alpha=(0.0, 5.0))
    for number, row in enumerate(stage_views(run, run.data.train)):
        order = sample_order(0, 8 * number, 8 * number + 8, images=8)
        _, targets = mix_batch(
            torch.zeros(8, 3, 1, 1), torch.eye(8), row.settings, run.config.augment, seed=step_seed(0, number)
        )
        assert np.array_equal(row.targets[np.ix_(order, order)], targets.numpy())


def test_cutmix_is_seen_with_its_targets(experiment):
    run = experiment(cutmix_alpha=(0.0, 1.0), image_size=(16, 64))
    *_, last = stage_views(run, run.data.train)
    own = (last.images == colors(run.data.train)[:, None, None]).all(-1).mean((1, 2))
    np.testing.assert_allclose(np.diag(last.targets), own, atol=1e-6)
    assert own.min() < 0.9


def test_views_are_the_loaders_own(experiment):
    run = experiment(stages=2)
    run = replace(
        run,
        config=replace(
            run.config,
            augment=AugmentConfig(operations=2),
            data=replace(run.config.data, crop_area=(0.1, 0.6)),
            train=replace(run.config.train, seed=7),
        ),
    )
    images = run.data.train
    for number, row in enumerate(stage_views(run, images)):
        order = sample_order(7, 8 * number, 8 * number + 8, images=8).tolist()
        for index in range(8):
            out = np.empty_like(row.images[index])
            train_image(
                images.read(index),
                row.settings,
                config=run.config.data,
                augment=run.config.augment,
                rng=sample_random(7, 8 * number + order.index(index)),
                out=out,
            )
            assert np.array_equal(row.images[index], out)


def test_the_place_of_augmentation_changes_no_view(experiment):
    run = experiment()
    views = []
    for place in ("worker", "device"):
        augment = AugmentConfig(operations=2, place=place)
        config = replace(run.config, augment=augment)
        views.append([row.images for row in stage_views(replace(run, config=config), run.data.train)])
    for worker, device in zip(*views, strict=True):
        assert np.array_equal(worker, device)


def drawn(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_views_are_drawn_in_proportion_to_their_pixels(experiment, tmp_path):
    run = experiment(image_size=(100, 200))
    draw_views(run, tmp_path / "views.png", images=3)
    image = drawn(tmp_path / "views.png")
    assert image.shape == (4 * 34 + 132 + 132 + 150 + 200 + 2 * 24, 170 + 3 * (200 + 14) + 24, 3)
    for color in colors(run.data.train)[sample_order(0, 0, 3, images=8)]:
        assert (image == color).all(-1).sum() == 120 * 160 + 100**2 + 150**2 + 200**2
    assert [path.name for path in tmp_path.iterdir() if path.suffix] == ["views.png"]


def test_small_views_are_enlarged_by_a_whole_number(experiment, tmp_path):
    run = experiment(stages=2, image_size=(24, 48))
    draw_views(run, tmp_path / "views.png", images=2)
    for color in colors(run.data.train)[sample_order(0, 0, 2, images=8)]:
        shown = (drawn(tmp_path / "views.png") == color).all(-1).sum()
        assert shown == 120 * 160 + (4 * 24) ** 2 + (4 * 48) ** 2


def test_photos_that_cannot_be_read_are_passed_over(experiment, photos, tmp_path):
    run = experiment()
    first = int(sample_order(0, 0, 1, images=8)[0])
    expected = colors(run.data.train)
    (photos / run.data.train.names[first]).write_bytes(b"")
    draw_views(run, tmp_path / "views.png", images=8)
    image = drawn(tmp_path / "views.png")
    assert image.shape[1] == 170 + 7 * (160 + 14) + 24
    assert [bool((image == color).all(-1).any()) for color in expected] == [i != first for i in range(8)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$\\frac$", "a very long name of a class that fits nowhere", "&<b>"])
def test_any_class_name_can_be_drawn(experiment, photos, tmp_path, name):
    (photos / "cat").rename(photos / name)
    draw_views(experiment(), tmp_path / "views.png", images=2)
    assert drawn(tmp_path / "views.png").shape[1] == 170 + 2 * (160 + 14) + 24
