"""Threads that die of what nobody expects: each says which one, at which image, and of what."""

import threading
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
import torch

from effnet.arch.preprocessing import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data.failures import WorkerError, named_failures
from effnet.data.images import LabelledImages
from effnet.data.loader import eval_batches, train_batches
from effnet.data.pillow import BadImageError
from effnet.data.resident import load_resident
from effnet.errors import UnreachableError, UserError
from effnet.schedule.progressive import StageSchedule

DIED = r"the loader thread effnet-data_\d died at b\.png: ValueError: bits are missing"


@pytest.fixture
def failing(picture, encode) -> Callable[[BaseException], LabelledImages]:
    """Make three images; reading the second one raises."""

    def make(error: BaseException) -> LabelledImages:
        def read(index: int) -> bytes:
            if index == 1:
                raise error
            return encode(picture(20, 24, index), "PNG")

        return LabelledImages(
            class_names=("x", "y"),
            labels=np.array([0, 1, 0]),
            names=["a.png", "b.png", "c.png"],
            read=read,
        )

    return make


@pytest.mark.parametrize("workers", [1, 3])
def test_a_thread_that_dies_while_training_is_named(failing, stage, workers):
    schedule = StageSchedule((stage(image_size=8, batch_size=3, start_step=0, end_step=2),), 3, 3)
    images = failing(ValueError("bits are missing"))
    batches = train_batches(images, schedule, DataConfig(workers=workers), AugmentConfig(), seed=0)
    with closing(batches), pytest.raises(WorkerError, match=DIED) as caught:
        list(batches)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_thread_that_dies_while_evaluating_is_named(failing):
    images = failing(ValueError("bits are missing"))
    with pytest.raises(WorkerError, match=DIED):
        list(eval_batches(images, Preprocessing(image_size=8), batch_size=2, workers=1))


def test_a_thread_that_dies_while_images_are_put_on_the_device_is_named(failing):
    with pytest.raises(WorkerError, match=DIED):
        load_resident(failing(ValueError("bits are missing")), DataConfig(workers=1), torch.device("cpu"))


@pytest.mark.parametrize("error", [MemoryError("no room"), SystemExit("a library has had enough")])
def test_whatever_ends_a_thread_is_named(error):
    name = threading.current_thread().name
    with (
        pytest.raises(WorkerError, match=rf"thread {name} died at a.jpg: {type(error).__name__}: {error}"),
        named_failures("a.jpg"),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [BadImageError("truncated"), OSError("gone"), UserError("x"), UnreachableError("y")]
)
def test_what_is_expected_passes(error):
    with pytest.raises(type(error)) as caught, named_failures("a.jpg"):
        raise error
    assert caught.value is error
