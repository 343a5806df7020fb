import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch.preprocessing import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data import filling, threads
from effnet.data.bad_images import BadImage
from effnet.data.device_augment import augment_images
from effnet.data.failures import WorkerError
from effnet.data.images import LabelledImages
from effnet.data.loader import ALONE, Share, eval_batches, prepare_images, train_batches
from effnet.data.sources import open_data
from effnet.data.transforms import cut_view, eval_image
from effnet.errors import UserError
from effnet.schedule.progressive import StageSchedule

AUGMENT = AugmentConfig(policy="relative")
AUGMENTS = [
    AugmentConfig(method="autoaugment"),
    AugmentConfig(method="randaugment_or_autoaugment", cutout=0.25, repeats=3),
    AugmentConfig(method="trivialaugment", policy="relative", repeats=2),
]
IMAGES = 11
STEPS = 7


def _images(picture, encode, count=IMAGES, bad=(), read=None):
    files = [encode(picture(20 + index, 30, index), "JPEG" if index % 2 else "PNG") for index in range(count)]
    for index in bad:
        files[index] = files[index][:-30]
    return LabelledImages(
        class_names=("even", "odd"),
        labels=np.arange(count, dtype=np.int64) % 2,
        names=tuple(f"image {index}" for index in range(count)),
        read=read or (lambda index: files[index]),
    )


def _flat_images(count):
    """Images that show their own index, whatever is cut out of them."""
    return LabelledImages(
        class_names=tuple(str(index) for index in range(count)),
        labels=np.arange(count, dtype=np.int64),
        names=tuple(str(index) for index in range(count)),
        read=lambda index: np.full((9, 9, 3), index, np.uint8),
    )


def _train(images, schedule, *, workers=2, seed=5, start_step=0, most_bad=0.05, augment=AUGMENT, share=ALONE):
    data = DataConfig(workers=workers, max_bad_fraction=most_bad)
    batches = train_batches(images, schedule, data, augment, seed=seed, start_step=start_step, share=share)
    return list(batches)


def _assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.step, one.settings) == (other.step, other.settings)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def _views(batch):
    return batch.images if batch.drawn is None else augment_images(batch.images, batch.drawn)


def _data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("effnet-data")]


def test_batches_have_the_settings_of_their_steps(picture, encode, two_stages):
    batches = _train(_images(picture, encode), two_stages(IMAGES))
    assert [batch.step for batch in batches] == list(range(STEPS))
    assert [tuple(batch.images.shape) for batch in batches] == [(5, 16, 16, 3)] * 4 + [(3, 24, 24, 3)] * 3
    assert [batch.settings.stage for batch in batches] == [0] * 4 + [1] * 3
    assert all(batch.labels.dtype == torch.int64 and batch.images.dtype == torch.uint8 for batch in batches)


@pytest.mark.parametrize("workers", [2, 4])
def test_batches_do_not_depend_on_the_number_of_threads(picture, encode, two_stages, monkeypatch, workers):
    images = _images(picture, encode)
    alone = _train(images, two_stages(IMAGES), workers=1)
    _assert_equal(_train(images, two_stages(IMAGES), workers=workers), alone)
    monkeypatch.setattr(threads, "CHUNK", 2)
    _assert_equal(_train(images, two_stages(IMAGES), workers=workers), alone)


@pytest.mark.parametrize("augment", AUGMENTS, ids=lambda augment: augment.method)
@pytest.mark.parametrize("place", ["worker", "device"])
def test_every_method_draws_the_same_for_any_threads_processes_and_start(
    picture, encode, two_stages, augment, place
):
    images, schedule = _images(picture, encode), two_stages(IMAGES)
    augment = replace(augment, place=place)
    whole = _train(images, schedule, workers=1, augment=augment)
    assert not torch.equal(
        _views(whole[0]), _views(_train(images, schedule, seed=6, workers=1, augment=augment)[0])
    )
    others = [(4, 0, [ALONE]), (2, 3, [ALONE]), (2, 0, [Share(rank, 2) for rank in range(2)])]
    for workers, start, shares in others:
        runs = [
            _train(images, schedule, workers=workers, start_step=start, augment=augment, share=share)
            for share in shares
        ]
        for one, *parts in zip(whole[start:], *runs, strict=True):
            assert torch.equal(torch.cat([_views(part) for part in parts]), _views(one))
            assert torch.equal(torch.cat([part.labels for part in parts]), one.labels)


def test_repeated_samples_are_different_views_of_one_image(picture, encode, stage):
    images = _images(picture, encode)
    schedule = StageSchedule((stage(end_step=11, batch_size=4),), IMAGES, 4)
    once = _train(images, StageSchedule((stage(end_step=11, batch_size=2),), IMAGES, 2))
    twice = _train(images, schedule, augment=replace(AUGMENT, repeats=2))
    labels = torch.cat([batch.labels for batch in twice])
    assert torch.equal(labels, torch.cat([batch.labels for batch in once]).repeat_interleave(2))
    views = torch.cat([batch.images for batch in twice])
    assert all(not torch.equal(one, other) for one, other in zip(views[::2], views[1::2], strict=True))


def test_a_source_is_told_of_repeated_images(two_stages):
    told = []
    images = replace(_flat_images(IMAGES), expect=told.append)
    batches = _train(images, two_stages(IMAGES), augment=AugmentConfig(operations=0, repeats=2))
    for soon, batch in zip(told, batches, strict=True):
        assert soon[: len(batch.labels)].tolist() == batch.labels.tolist()


@pytest.mark.parametrize("held_bytes", [0, 3000])
def test_images_are_held_up_to_a_limit(picture, encode, two_stages, monkeypatch, held_bytes):
    """With 0 bytes, each image goes through all steps alone."""
    images = _images(picture, encode, bad=(3, 4))
    held = []

    def watched(view, config, *, out):
        held.append(view.picture.held_bytes)
        cut_view(view, config, out=out)

    monkeypatch.setattr(filling, "cut_view", watched)
    usual = _train(images, two_stages(IMAGES), most_bad=0.5)
    # A PNG file is decoded as soon as it is opened; of a JPEG file, its bytes are held.
    assert {size for size in held if size >= 1800} == {3 * 30 * (20 + index) for index in (0, 2, 6, 8, 10)}
    monkeypatch.setattr(filling, "HELD_BYTES", held_bytes)
    _assert_equal(_train(images, two_stages(IMAGES), most_bad=0.5), usual)


@pytest.mark.parametrize("start_step", [1, 4, 6, 7])
def test_resume_equals_uninterrupted(picture, encode, two_stages, start_step):
    images = _images(picture, encode)
    whole = _train(images, two_stages(IMAGES))
    _assert_equal(_train(images, two_stages(IMAGES), start_step=start_step), whole[start_step:])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_resume_anywhere_equals_uninterrupted(stage, data):
    images = _flat_images(data.draw(st.integers(1, 40), "images"))
    stages, start = [], 0
    for number in range(data.draw(st.integers(1, 3), "stages")):
        end = start + data.draw(st.integers(1, 5), "steps")
        batch_size = data.draw(st.integers(1, 9), "batch size")
        stages.append(
            stage(
                stage=number,
                start_step=start,
                end_step=end,
                batch_size=batch_size,
                image_size=8 + number,
                randaugment_magnitude=number,
            )
        )
        start = end
    schedule = StageSchedule(tuple(stages), len(images), stages[-1].batch_size)
    whole = _train(images, schedule, workers=data.draw(st.sampled_from([1, 2, 4]), "workers"))
    for step in data.draw(st.lists(st.integers(0, start), max_size=3), "interruptions"):
        _assert_equal(_train(images, schedule, start_step=step), whole[step:])


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_each_batch(picture, encode, two_stages, processes):
    images = _images(picture, encode)
    alone = _train(images, two_stages(IMAGES))
    shares = [_train(images, two_stages(IMAGES), share=Share(rank, processes)) for rank in range(processes)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_an_evaluation(picture, encode, processes):
    images = _images(picture, encode)
    shares = [
        list(eval_batches(images, Preprocessing(image_size=8), batch_size=2, share=Share(rank, processes)))
        for rank in range(processes)
    ]
    pixels = torch.cat([batch.images for batches in shares for batch in batches])
    whole = eval_batches(images, Preprocessing(image_size=8), batch_size=IMAGES)
    assert torch.equal(pixels, next(whole).images)


def test_a_source_is_told_what_will_be_read(two_stages):
    told = []
    images = replace(_flat_images(IMAGES), expect=told.append)
    batches = _train(images, two_stages(IMAGES), augment=AugmentConfig(operations=0))
    assert len(told) == STEPS
    for soon, batch in zip(told, batches, strict=True):
        assert soon[: len(batch.labels)].tolist() == batch.labels.tolist()


def test_seed_changes_order_and_pixels(picture, encode, two_stages):
    images = _images(picture, encode)
    first, other = (_train(images, two_stages(IMAGES), seed=seed) for seed in (1, -1))
    assert not torch.equal(first[0].images, other[0].images)


def test_each_image_comes_exactly_once_an_epoch_across_stages(two_stages, stage):
    stages = (
        stage(end_step=6, batch_size=5),
        stage(stage=1, start_step=6, end_step=14, batch_size=7, image_size=8),
    )
    schedule = StageSchedule(stages, IMAGES, 5)
    batches = _train(_flat_images(IMAGES), schedule, augment=AugmentConfig(operations=0))
    shown = [int(image[0, 0, 0]) for batch in batches for image in batch.images]
    labels = [int(label) for batch in batches for label in batch.labels]
    assert shown == labels
    assert len(shown) == 6 * 5 + 8 * 7
    epochs = [tuple(shown[start : start + IMAGES]) for start in range(0, len(shown) - IMAGES, IMAGES)]
    assert all(sorted(epoch) == list(range(IMAGES)) for epoch in epochs)
    assert len(set(epochs)) == len(epochs) == 7


def test_batch_may_be_larger_than_the_data(stage):
    schedule = StageSchedule((stage(end_step=2, batch_size=10),), 3, 10)
    batches = _train(_flat_images(3), schedule, augment=AugmentConfig(operations=0))
    shown = [int(label) for batch in batches for label in batch.labels]
    assert all(sorted(shown[start : start + 3]) == [0, 1, 2] for start in range(0, 18, 3))


def test_an_image_gets_another_view_each_epoch(picture, stage):
    images = LabelledImages(
        class_names=("a", "b"),
        labels=np.zeros(1, np.int64),
        names=("one",),
        read=lambda index: picture(40, 40),
    )
    batches = _train(images, StageSchedule((stage(end_step=2, batch_size=3),), 1, 3))
    assert len({image.numpy().tobytes() for batch in batches for image in batch.images}) == 6


def test_bad_image_is_replaced_by_the_next_and_reported_once(picture, encode, two_stages):
    bad = (3, 4, 10)  # The one after 10 is 0.
    images = _images(picture, encode, bad=bad)
    batches = _train(images, two_stages(IMAGES), most_bad=0.5)
    reports = [report for batch in batches for report in batch.bad]
    assert sorted(report.name for report in reports) == ["image 10", "image 3", "image 4"]
    assert BadImage("image 3", "the JPEG data is truncated") in reports
    assert all("truncated" in report.reason for report in reports)

    substitutes = {3: 5, 4: 5, 10: 0}
    mended = replace(
        images,
        labels=np.array([substitutes.get(index, index) % 2 for index in range(IMAGES)], np.int64),
        read=lambda index: images.read(substitutes.get(index, index)),
    )
    _assert_equal(batches, _train(mended, two_stages(IMAGES)))
    _assert_equal(batches, _train(images, two_stages(IMAGES), most_bad=0.5, workers=1))


def test_file_that_vanished_is_a_bad_image(picture, encode, two_stages, tmp_path):
    images = _images(picture, encode)

    def read(index):
        return (tmp_path / "gone.jpg").read_bytes() if index == 2 else images.read(index)

    batches = _train(replace(images, read=read), two_stages(IMAGES), most_bad=0.5)
    assert [report for batch in batches for report in batch.bad] == [
        BadImage("image 2", "No such file or directory")
    ]


def test_too_many_bad_images_stop_the_run(picture, encode, two_stages):
    images = _images(picture, encode, bad=(1, 3, 5, 7))
    with pytest.raises(
        UserError,
        match=r"3 of 11 training images cannot be read \(27.3%\), "
        r"more than data.max_bad_fraction = 0.2 allows: "
        r"(image \d: the JPEG data is truncated; ){3}"
        r"mend or remove them \('effnet data check digits' finds all",
    ):
        _train(images, two_stages(IMAGES), most_bad=0.2)
    assert not _data_threads()


def test_data_without_any_good_image_stop_the_run(picture, encode, two_stages):
    images = _images(picture, encode, bad=range(IMAGES))
    with pytest.raises(UserError, match="11 of 11 training images cannot be read"):
        _train(images, two_stages(IMAGES), most_bad=5.0)


def test_error_in_a_thread_surfaces(picture, encode, two_stages):
    def read(index):
        raise ZeroDivisionError("in a thread")

    with pytest.raises(WorkerError, match=r"died at .*: ZeroDivisionError: in a thread"):
        _train(_images(picture, encode, read=read), two_stages(IMAGES))
    assert not _data_threads()


def test_closing_stops_the_threads_promptly(stage):
    calls = []

    def read(index):
        calls.append(index)
        time.sleep(0.01)
        return np.zeros((4, 4, 3), np.uint8)

    images = replace(_flat_images(100), read=read)
    schedule = StageSchedule((stage(end_step=1000, batch_size=32),), 100, 32)
    batches = train_batches(images, schedule, DataConfig(workers=2), AUGMENT, seed=0)
    with closing(batches):
        next(batches)
        assert len(_data_threads()) == 2
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
    assert not _data_threads()
    assert len(calls) <= (threads.BATCHES_AHEAD + 1) * 32


def test_only_a_few_batches_are_prepared_ahead(stage):
    read = []
    images = _flat_images(10)
    watched = replace(images, read=lambda index: read.append(index) or images.read(index))
    schedule = StageSchedule((stage(end_step=100, batch_size=4),), 10, 4)
    with closing(train_batches(watched, schedule, DataConfig(workers=2), AUGMENT, seed=0)) as batches:
        for _ in range(3):
            next(batches)
        time.sleep(0.2)
        assert len(read) == (3 + threads.BATCHES_AHEAD) * 4


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_sees_each_readable_image_once_in_order(picture, encode, workers, batch_size):
    images = _images(picture, encode, bad=(0, 5, 6))
    preprocessing = Preprocessing(image_size=12)
    batches = list(eval_batches(images, preprocessing, batch_size=batch_size, workers=workers))
    assert len(batches) == -(-IMAGES // batch_size)
    good = [index for index in range(IMAGES) if index not in (0, 5, 6)]
    expected = [eval_image(images.read(index), preprocessing) for index in good]
    assert np.array_equal(torch.cat([batch.images for batch in batches]).numpy(), np.stack(expected))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [index % 2 for index in good]
    assert [bad.name for batch in batches for bad in batch.bad] == ["image 0", "image 5", "image 6"]
    if batch_size == 1:
        assert tuple(batches[0].images.shape) == (0, 12, 12, 3)


def test_prepared_images_are_normalised_in_rgb_order():
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    preprocessing = Preprocessing(image_size=1, mean=(0.5, 0.2, 0.1), std=(0.5, 0.25, 0.3))
    prepared = prepare_images(images, preprocessing, torch.device("cpu"))
    assert prepared.shape == (1, 3, 1, 1)
    assert prepared.flatten().tolist() == pytest.approx([-1, 0, 3], abs=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_prepared_images_have_the_asked_type_and_layout(channels_last):
    images = torch.randint(256, (2, 5, 5, 3), dtype=torch.uint8)
    original = images.clone()
    prepared = prepare_images(
        images,
        Preprocessing(image_size=5),
        torch.device("cpu"),
        dtype=torch.bfloat16,
        channels_last=channels_last,
    )
    assert prepared.dtype == torch.bfloat16
    assert prepared.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert torch.equal(images, original)


@pytest.mark.parametrize(
    ("folder", "train", "val", "classes"),
    [("flower_photos", 1200, 300, 5), ("cifar10", 50_000, 10_000, 10)],
)
def test_real_data_is_read(stage, folder, train, val, classes):
    source = Path(__file__).parents[2].parent / "shared" / "data" / folder
    if not source.is_dir():
        pytest.skip(f"there is no real data in {source.parent.name} beside the checkout")
    data = open_data(str(source), val_fraction=0.2, split_seed=0)
    assert (len(data.train), len(data.val), len(data.class_names)) == (train, val, classes)
    schedule = StageSchedule((stage(end_step=2, batch_size=8, image_size=32),), train, 8)
    batches = _train(data.train, schedule)
    assert not any(batch.bad for batch in batches)
    assert all(batch.images.float().std() > 5 for batch in batches)
