"""Training images that are kept on the device, against the same run from files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from effnet.config import AugmentConfig, DataConfig
from effnet.data import resident as resident_module
from effnet.data.bad_images import BadImage
from effnet.data.device_augment import augment_images
from effnet.data.images import LabelledImages, Pyramid
from effnet.data.loader import Share, train_batches
from effnet.data.resident import load_resident, resident_batches
from effnet.errors import UserError

CPU = torch.device("cpu")
IMAGES = 11
AUGMENT = AugmentConfig(policy="relative")


@pytest.fixture
def images(picture, encode):
    """PNG files of 40 x 30 pixels."""
    files = [encode(picture(30, 40, index), "PNG") for index in range(IMAGES)]
    return LabelledImages(
        class_names=("even", "odd"),
        labels=np.arange(IMAGES, dtype=np.int64) % 2,
        names=tuple(f"image {index}" for index in range(IMAGES)),
        read=lambda index: files[index],
    )


def _broken(images, *bad):
    def read(index):
        return images.read(index)[:-40] if index in bad else images.read(index)

    return replace(images, read=read)


def _batches(images, schedule, *, data=None, augment=AUGMENT, **options):
    data = data or DataConfig(workers=2)
    resident = load_resident(images, data, CPU)
    return list(resident_batches(resident, schedule, data, augment, seed=5, **options))


@pytest.mark.parametrize(("interpolation", "antialias"), [("bilinear", False), ("bicubic", True)])
def test_a_run_sees_the_views_that_it_would_see_from_files(images, two_stages, interpolation, antialias):
    data = DataConfig(workers=2, interpolation=interpolation, antialias=antialias)
    augment = AugmentConfig(policy="relative", place="device")
    from_files = list(train_batches(images, two_stages(IMAGES), data, augment, seed=5))
    resident = _batches(images, two_stages(IMAGES), data=data)
    assert len(resident) == len(from_files) == 7
    for ours, theirs in zip(resident, from_files, strict=True):
        assert (ours.step, ours.settings) == (theirs.step, theirs.settings)
        assert torch.equal(ours.labels, theirs.labels)
        for name in ("is_mirrored", "operations", "arguments", "places"):
            assert np.array_equal(getattr(ours.drawn, name), getattr(theirs.drawn, name))
        difference = (ours.images.int() - theirs.images.int()).abs()
        assert difference.max() <= 1 + antialias
        assert not torch.equal(augment_images(ours.images, ours.drawn), ours.images)


@pytest.mark.parametrize("draws", ["image", "batch"])
def test_threads_resuming_and_processes_change_nothing(images, two_stages, draws):
    data = DataConfig(workers=2, resident_draws=draws)
    whole = _batches(images, two_stages(IMAGES), data=data)
    for again in (
        _batches(images, two_stages(IMAGES), data=replace(data, workers=1)),
        [*whole[:3], *_batches(images, two_stages(IMAGES), data=data, start_step=3)],
    ):
        assert len(again) == 7
        assert all(torch.equal(a.images, b.images) for a, b in zip(again, whole, strict=True))
    halves = [_batches(images, two_stages(IMAGES), data=data, share=Share(rank, 2)) for rank in (0, 1)]
    for first, second, both in zip(*halves, whole, strict=True):
        assert np.array_equal(
            np.concatenate([first.drawn.arguments, second.drawn.arguments]), both.drawn.arguments
        )
        assert torch.equal(torch.cat([first.images, second.images]), both.images)
        assert torch.equal(torch.cat([first.labels, second.labels]), both.labels)


@pytest.mark.parametrize("bad", [(3, 4), (0, 10)])
def test_bad_images_are_replaced_as_from_files_and_reported_once(images, two_stages, monkeypatch, bad):
    monkeypatch.setattr(resident_module, "_IMAGES_AHEAD", 4)
    broken = _broken(images, *bad)
    data = DataConfig(workers=2, max_bad_fraction=0.5)
    resident = _batches(broken, two_stages(IMAGES), data=data)
    names = [f"image {index}" for index in bad]
    assert [report.name for batch in resident for report in batch.bad] == names
    assert isinstance(resident[0].bad[0], BadImage)
    assert resident[0].bad[0].reason
    from_files = train_batches(broken, two_stages(IMAGES), data, AugmentConfig(operations=0), seed=5)
    for ours, theirs in zip(resident, from_files, strict=True):
        assert torch.equal(ours.labels, theirs.labels)
    substitute = {3: 5, 4: 5, 0: 1, 10: 1}
    mended = replace(images, read=lambda i: images.read(substitute[i] if i in bad else i))
    for ours, theirs in zip(resident, _batches(mended, two_stages(IMAGES)), strict=True):
        assert torch.equal(ours.images, theirs.images)


@pytest.mark.parametrize("bad", [range(6), range(IMAGES)])
def test_too_many_bad_images_stop_the_run(images, bad):
    with pytest.raises(UserError, match=f"{len(bad)} of 11 training images cannot be read"):
        load_resident(_broken(images, *bad), DataConfig(max_bad_fraction=0.5), CPU)


def test_all_images_bad_stop_even_where_all_may_be(images):
    with pytest.raises(UserError, match="11 of 11"):
        load_resident(_broken(images, *range(IMAGES)), DataConfig(max_bad_fraction=2.0), CPU)


def test_images_of_different_sizes_are_told(images, picture):
    mixed = replace(images, read=lambda index: picture(30, 41) if index == 7 else images.read(index))
    message = (
        "data.resident needs images of one size, but image 7 has 41 x 30 pixels and others 40 x 30; "
        "set data.resident=false"
    )
    with pytest.raises(UserError, match=message):
        load_resident(mixed, DataConfig(), CPU)


def test_a_device_without_room_is_told(images, monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.Tensor, "to", refuse)
    with pytest.raises(UserError, match=r"the training images take 0\.0 GB, for which cpu has no room"):
        load_resident(images, DataConfig(), CPU)


def test_crops_are_drawn_in_the_original_of_a_smaller_copy(images, picture, two_stages):
    copies = {index: picture(15, 20, index) for index in range(IMAGES)}

    def read(index):
        return Pyramid(height=30, width=40, short_sides=(15,), read=lambda _: copies[index])

    stored = replace(images, read=read)
    augment = AugmentConfig(operations=0, place="device")
    from_files = train_batches(stored, two_stages(IMAGES), DataConfig(), augment, seed=5)
    resident = _batches(stored, two_stages(IMAGES), augment=augment)
    for ours, theirs in zip(resident, from_files, strict=True):
        assert (ours.images.int() - theirs.images.int()).abs().max() <= 1
