"""Runs whose images are not at hand, for what can be known of them without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from effnet.config import Config
from effnet.data.images import DataSplit, LabelledImages
from effnet.training.experiment import Experiment, network_of, prepare_experiment


def prepare_unread(config: Config) -> Experiment:
    """Put a run together without opening its data or its weights.

    Args:
        config: Of a run with ``data.train_images``, which says how long its stages are.

    Raises:
        UserError: Something in the configuration cannot be had.
    """
    classes = config.data.classes or network_of(config.model).num_classes
    unread = _unread_images(config.data.train_images, classes)
    return prepare_experiment(
        # Images that are not at hand cannot be put on the device either.
        replace(config, data=replace(config.data, resident=False)),
        load=False,
        data=DataSplit(train=unread, val=unread, is_drawn=False),
    )


def _unread_images(images: int, classes: int) -> LabelledImages:
    """Return what stands in for images that are not at hand: their number and that of their classes."""

    def read(index: int) -> bytes:
        raise OSError(f"image {index} is not at hand")

    return LabelledImages(
        class_names=tuple(map(str, range(classes))),
        labels=np.zeros(images, np.int64),
        names=[""] * images,
        read=read,
    )
