"""Fill a training batch with views of images, whatever is wrong with some of them.

Dimension key: N images, S side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from effnet.config import AugmentConfig, DataConfig
from effnet.data.augment import change
from effnet.data.bad_images import bad_reason, too_many_bad
from effnet.data.drawn_views import DrawnViews
from effnet.data.failures import named_failures
from effnet.data.images import Encoded, LabelledImages
from effnet.data.jpeg_scan import ScanMemory
from effnet.data.order import sample_order, sample_random
from effnet.data.pillow import BadImageError, TruncatedImageError
from effnet.data.repair import repair_image
from effnet.data.transforms import TrainView, cut_view, open_view
from effnet.errors import UnreachableError, UserError
from effnet.schedule.progressive import StageSettings

EXPECTED_SAMPLES = 8192
"""How far ahead a source that fetches images in blocks is told what will be read."""

HELD_BYTES = 32 << 20
"""Of images that are read and not yet cut; with more, a thread goes on to the next step."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainPlan:
    """A training batch before and while its pixels are filled in."""

    step: int
    settings: StageSettings
    seed: int
    first_sample: int
    order: Int64[np.ndarray, " N"]
    pixels: UInt8[np.ndarray, "N S S 3"]
    used: Int64[np.ndarray, " N"]
    """Which image is in which row, once it is filled: those of ``order``, or what replaces them."""
    drawn: DrawnViews | None

    @classmethod
    def of(
        cls,
        images: LabelledImages,
        settings: StageSettings,
        augment: AugmentConfig,
        *,
        step: int,
        seed: int,
        samples: range,
        pixels: UInt8[np.ndarray, "N S S 3"],
    ) -> TrainPlan:
        """Plan the batch of a step, or a part of it.

        Args:
            images: The training images.
            settings: Of the step.
            augment: Where images are augmented, and how many views an image gives.
            step: Of the run.
            seed: Of the run.
            samples: Consecutive, counted from the start of the run.
            pixels: Memory to be filled.
        """
        order_of = partial(
            sample_order, seed, images=len(images), blocks=images.blocks, repeats=augment.repeats
        )
        if images.expect is not None:
            images.expect(order_of(samples.start, samples.start + min(EXPECTED_SAMPLES, len(images))))
        return cls(
            step=step,
            settings=settings,
            seed=seed,
            first_sample=samples.start,
            order=order_of(samples.start, samples.stop),
            pixels=pixels,
            used=np.empty(len(samples), np.int64),
            drawn=DrawnViews.empty(len(samples), augment) if augment.place == "device" else None,
        )


class _Opened(NamedTuple):
    """A row of a batch whose image is read and whose view is drawn."""

    row: int
    image: int
    """Its index."""
    view: TrainView


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Views:
    """How a run looks at its images; threads share it."""

    images: LabelledImages
    config: DataConfig
    augment: AugmentConfig
    most_bad: int
    found_whole: Bool[np.ndarray, " N"]
    """Which images were decoded without an error, by any thread."""
    scans: ScanMemory
    """Of all images, found by any thread."""
    known_bad: dict[int, str] = field(default_factory=dict)
    """Which images cannot be used, and why, found by any thread; none of them is tried again."""

    def fill(self, batch: TrainPlan, rows: range) -> dict[int, str]:
        """Fill some rows of a batch; return what is wrong with which images that came up.

        An image that cannot be used is replaced by the next usable one in the order of the data.
        """
        wrong: dict[int, str] = {}
        for row in self._fill_good(batch, rows):
            index = int(batch.order[row])
            while not self._fill_row(batch, row, index, wrong):
                if len(wrong) > self.most_bad:
                    raise too_many_bad(self.images, wrong, self.config)
                index = (index + 1) % len(self.images)
            batch.used[row] = index
        return wrong

    def _fill_good(self, batch: TrainPlan, rows: range) -> list[int]:
        """Fill the rows whose images are good; return the others.

        Each step is taken for several images before the next step is, so that its code stays in the
        processor's caches.
        """
        left: list[int] = []
        for opened in self._open(batch, rows, left):
            cut: list[_Opened] = []
            for one in opened:
                try:
                    cut_view(one.view, self.config, out=batch.pixels[one.row])
                except Exception as error:
                    _put_aside(one.row, left, error)
                else:
                    cut.append(one)
            for row, image, view in cut:
                try:
                    self._augment(batch, row, view)
                except Exception as error:
                    _put_aside(row, left, error)
                self.found_whole[image] = True
                batch.used[row] = image
        return left

    def _open(self, batch: TrainPlan, rows: range, left: list[int]) -> Iterator[list[_Opened]]:
        """Yield rows with their views, a few at a time; put the rows aside whose images cannot be opened."""
        opened: list[_Opened] = []
        held = 0
        for row, index in zip(rows, batch.order[rows.start : rows.stop].tolist(), strict=True):
            if index in self.known_bad:
                left.append(row)
                continue
            try:
                view = self._view(batch, row, self.images.read(index), index)
            except Exception as error:
                _put_aside(row, left, error)
                continue
            opened.append(_Opened(row, index, view))
            held += view.picture.held_bytes
            if held > HELD_BYTES:
                yield opened
                opened, held = [], 0
        yield opened

    def _fill_row(self, batch: TrainPlan, row: int, index: int, wrong: dict[int, str]) -> bool:
        """Fill a row, unless the image cannot be used; note what is wrong with it."""
        if index not in self.known_bad:
            try:
                with named_failures(self.images.names[index]):
                    damage = self._look(batch, row, index)
            except (BadImageError, OSError) as error:
                self.known_bad[index] = bad_reason(error)
            else:
                wrong |= {index: damage} if damage else {}
                return True
        wrong[index] = self.known_bad[index]
        return False

    def _look(self, batch: TrainPlan, row: int, index: int) -> str | None:
        """Fill a row; return what was repaired, if anything."""
        encoded = self.images.read(index)
        try:
            self._draw(batch, row, encoded, index)
        except TruncatedImageError as error:
            if self.config.damaged == "skip" or not isinstance(encoded, bytes):
                raise
            repaired = repair_image(encoded, error.reason)
            self._draw(batch, row, repaired.pixels)
            return repaired.reason
        self.found_whole[index] = True
        return None

    def _draw(self, batch: TrainPlan, row: int, encoded: Encoded, index: int | None = None) -> None:
        view = self._view(batch, row, encoded, index)
        cut_view(view, self.config, out=batch.pixels[row])
        self._augment(batch, row, view)

    def _view(self, batch: TrainPlan, row: int, encoded: Encoded, index: int | None) -> TrainView:
        return open_view(
            encoded,
            batch.settings,
            config=self.config,
            augment=self.augment,
            rng=sample_random(batch.seed, batch.first_sample + row),
            is_whole=index is not None and bool(self.found_whole[index]),
            scans=None if index is None else self.scans.of_image(index),
        )

    def _augment(self, batch: TrainPlan, row: int, view: TrainView) -> None:
        """Augment a row, or leave word of what the device is to do to it."""
        if batch.drawn is None:
            change(batch.pixels[row], view.drawn)
        else:
            batch.drawn.note(row, view.drawn)


def _put_aside(row: int, left: list[int], error: Exception) -> None:
    """Leave a row for a second look, which says what is wrong, and at which image; unless all would fail."""
    if isinstance(error, UserError | UnreachableError):
        raise error
    left.append(row)
