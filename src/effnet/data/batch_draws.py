"""What is done to the images of a step, drawn for all together, and distributed as what is drawn one by one.

Drawing for one image costs some 20 microseconds of the interpreter, which all threads share; here arrays are
drawn, except for what few use: AutoAugment, TrivialAugment, Cutout and random erasing.
Dimension key: N images, K operations an image, O operations of a policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64

from effnet.config import AugmentConfig, DataConfig
from effnet.data.augment import draw_view
from effnet.data.crops import CROP_ATTEMPTS
from effnet.data.drawn_views import KIND_PLACES, DrawnViews
from effnet.data.randaugment import POLICIES, Policy
from effnet.schedule.progressive import StageSettings


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DrawnBatch:
    """What was drawn for the images of a step."""

    crops: Int64[np.ndarray, "N 4"]
    """Left, top, width and height in pixels of the original."""
    height: int
    """Of the original, in pixels."""
    width: int
    views: DrawnViews

    def boxes(self, height: int, width: int) -> Int64[np.ndarray, "N 4"]:
        """Return top, left, height and width of the crops in copies of so many pixels, as `Crop.rounded`."""
        scale = np.array([width / self.width, height / self.height])
        start, length = self.crops[:, :2] * scale, self.crops[:, 2:] * scale
        size = np.array([width, height])
        first = np.minimum(np.rint(start), size - 1)
        last = np.clip(np.rint(start + length), first + 1, size)
        return np.concatenate([first[:, ::-1], (last - first)[:, ::-1]], axis=1).astype(np.int64)


def draw_batch(
    settings: StageSettings,
    height: int,
    width: int,
    *,
    data: DataConfig,
    augment: AugmentConfig,
    rng: np.random.Generator,
) -> DrawnBatch:
    """Draw crops, mirroring and augmentation of all images of a step.

    Args:
        settings: Of the step.
        height: Of every image, in pixels.
        width: Of every image, in pixels.
        data: How crops are drawn, and whether images are mirrored.
        augment: The method.
        rng: The only source of randomness.
    """
    crops = draw_crops(settings.batch_size, height, width, data, rng)
    return DrawnBatch(
        crops=crops, height=height, width=width, views=_draw_views(settings, data, augment, rng)
    )


def draw_crops(
    images: int, height: int, width: int, config: DataConfig, rng: np.random.Generator
) -> Int64[np.ndarray, "N 4"]:
    """Draw crops as `effnet.data.crops.draw_crop` does, for so many images of one size.

    Returns:
        Left, top, width and height in pixels.
    """
    crops = np.tile(np.array([0, 0, width, height]), (images, 1))
    rows = np.arange(images if config.crop_mode == "random" else 0)
    for _ in range(CROP_ATTEMPTS):
        if not len(rows):
            break
        aspect = rng.uniform(*config.crop_aspect, len(rows))
        smallest, largest = (
            np.rint(np.sqrt(area * height * width / aspect)).astype(np.int64) for area in config.crop_area
        )
        largest = np.minimum(np.minimum(largest, height), ((width + 0.5) / aspect).astype(np.int64))
        fits = smallest <= largest
        crop_height = np.maximum(rng.integers(smallest[fits], largest[fits], endpoint=True), 1)
        crop_width = np.clip(np.rint(crop_height * aspect[fits]).astype(np.int64), 1, width)
        left = rng.integers(width - crop_width, endpoint=True)
        top = rng.integers(height - crop_height, endpoint=True)
        crops[rows[fits]] = np.stack([left, top, crop_width, crop_height], axis=1)
        rows = rows[~fits]
    return crops


def _draw_views(
    settings: StageSettings, data: DataConfig, augment: AugmentConfig, rng: np.random.Generator
) -> DrawnViews:
    views = DrawnViews.empty(settings.batch_size, augment)
    if augment.method != "randaugment" or augment.cutout or settings.erasing_probability:
        for row in range(settings.batch_size):
            views.note(row, draw_view(settings, flip=data.flip, augment=augment, rng=rng))
        return views
    if data.flip:
        views.is_mirrored[:] = rng.random(settings.batch_size) < 0.5
    if not augment.operations:
        return views
    table = _table(augment.policy, settings.randaugment_magnitude, settings.image_size)
    drawn = rng.integers(len(table.kinds), size=views.operations.shape)
    sign = rng.integers(2, size=drawn.shape)
    views.operations[:] = table.kinds[drawn]
    views.arguments[:] = table.arguments[drawn, sign]
    places = rng.integers(settings.image_size, size=views.places.shape)
    views.places[:] = np.where((views.operations == KIND_PLACES["Cutout"])[..., None], places, 0)
    return views


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The operations of a policy at one strength and size."""

    kinds: Int64[np.ndarray, " O"]
    arguments: Float64[np.ndarray, "O 2"]
    """Of either sign."""


@lru_cache(maxsize=16)
def _table(policy: Policy, magnitude: float, size: int) -> _Table:
    operations, level = POLICIES[policy].values(), magnitude / 10
    arguments = [[float(one.argument(level, sign, size)) for sign in (1, -1)] for one in operations]
    return _Table(
        np.array([KIND_PLACES[operation.kind] for operation in operations]),
        np.array(arguments),
    )
