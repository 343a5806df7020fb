"""The images that exports are compared and calibrated with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from effnet.arch.preprocessing import Preprocessing
from effnet.data.images import LabelledImages
from effnet.data.loader import eval_batches, prepare_images
from effnet.data.splits import stratified_subset
from effnet.errors import UserError
from effnet.export.quantization import Calibration
from effnet.export.settings import ExportSettings

_MADE = 64
_PATCHES = 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CheckImages:
    """Images that a file and its network shall both answer."""

    images: LabelledImages
    has_labels: bool
    """Whether the labels are true, so that top-1 means something."""
    source: str
    """Where they came from, for people."""


def made_images(class_names: tuple[str, ...], side: int, *, count: int = _MADE) -> CheckImages:
    """Return patches of random colours, where there are no images: the same ones each time, without labels.

    Args:
        class_names: Of the network.
        side: In pixels.
        count: How many.
    """
    draws = np.random.default_rng(0).integers(0, 256, (count, _PATCHES, _PATCHES, 3), dtype=np.uint8)
    scale = -(-side // _PATCHES)

    def read(index: int) -> np.ndarray:
        return draws[index].repeat(scale, axis=0).repeat(scale, axis=1)

    images = LabelledImages(
        class_names=class_names,
        labels=np.zeros(count, np.int64),
        names=tuple(f"made image {index}" for index in range(count)),
        read=read,
    )
    return CheckImages(images=images, has_labels=False, source=f"{count} made images without labels")


def calibration_of(
    images: LabelledImages, preprocessing: Preprocessing, settings: ExportSettings
) -> Calibration:
    """Return some of the images as a file will take them, each class with its share.

    Raises:
        UserError: None of them can be read, or they are fewer than the file takes at once.
    """
    chosen = stratified_subset(images, settings.calibration_images, seed=0)
    rows = []
    for batch in eval_batches(chosen, preprocessing, batch_size=32):
        if settings.raw_pixels:
            rows.append(batch.images.numpy())
        else:
            normalised = prepare_images(batch.images, preprocessing, torch.device("cpu"), channels_last=False)
            rows.append(normalised.numpy())
    pixels = np.concatenate(rows) if rows else np.empty(0)
    if len(pixels) < max(settings.batch_size, 1):
        raise UserError(
            f"{len(pixels)} of {len(chosen)} images to calibrate int8 with could be read, and the file takes "
            f"{max(settings.batch_size, 1)} at once; give more images with --calibration"
        )
    return Calibration(pixels=pixels, keep=settings.keep)
