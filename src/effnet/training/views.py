"""A picture of what the network sees in every stage of a run: figure 4 of 2104.00298, with one's own photos.

Dimension key: N images, S side, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch.nn import functional

from effnet.config import AugmentConfig, Config
from effnet.data.augment import describe
from effnet.data.decode import decode_image
from effnet.data.images import LabelledImages
from effnet.data.loader import train_batches
from effnet.data.mixing import mix_batch
from effnet.data.order import sample_order
from effnet.data.pillow import BadImageError
from effnet.errors import UserError
from effnet.files import whole_file
from effnet.schedule.condense import condensed
from effnet.schedule.progressive import StageSchedule, StageSettings
from effnet.training.experiment import Experiment
from effnet.training.step import step_seed

_DPI = 100
_TITLE = {"fontsize": 10, "fontweight": "bold", "color": "#333b44"}
_VALUES = {"fontsize": 9, "color": "#333b44"}
_LETTER = 6
"""Width of a caption's letters in pixels, and then some."""
_BELOW = {"fontsize": 8, "color": "#7a8794", "ha": "center"}
_SMALLEST_SHOWN = 160
"""Where the last stage's images are smaller, all are enlarged, by the same whole number."""
_PHOTO, _LABEL_WIDTH, _LABEL_HEIGHT, _MARGIN, _GAP, _CAPTION = 120, 170, 132, 24, 14, 34
"""Pixels: height of the photos themselves, room for the rows' labels, and what lies between."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StageViews:
    """Some photos as one stage trains on them."""

    settings: StageSettings
    images: UInt8[np.ndarray, "N S S 3"]
    targets: Float[np.ndarray, "N N"]
    """How much of the answer each photo counts for."""


def stage_views(experiment: Experiment, photos: LabelledImages) -> Iterator[StageViews]:
    """Yield the same photos as every stage of a run trains on them; see `views_of`."""
    return views_of(experiment.config, experiment.schedule, photos)


def views_of(config: Config, schedule: StageSchedule, photos: LabelledImages) -> Iterator[StageViews]:
    """Yield the same photos as every stage of a run trains on them; of many sizes, as eight of them do.

    The run's own loader and mixing make them: a run of one step a stage on these photos alone, with the
    settings of the stages and the run's seed. A batch is all photos, so that each is in it once.

    Args:
        config: Of the run, complete.
        schedule: Its stages.
        photos: Images that can be read.

    Yields:
        The stages in order; the photos in the order that they were given in.
    """
    count = len(photos)
    stages = tuple(
        replace(stage, start_step=step, end_step=step + 1, batch_size=count)
        for step, stage in enumerate(condensed(schedule).stages)
    )
    short = StageSchedule(stages, train_images=count, reference_batch_size=count)
    numbered = replace(photos, class_names=tuple(photos.names), labels=np.arange(count), label_sets=None)
    seed = config.train.seed
    # What is drawn does not depend on the place.
    augment = replace(config.augment, place="worker", repeats=1)
    data = replace(config.data, worker_kind="threads")  # For some photos no process is started.
    with closing(train_batches(numbered, short, data, augment, seed=seed)) as batches:
        for batch in batches:
            images, targets = mix_batch(
                batch.images.permute(0, 3, 1, 2).float(),
                functional.one_hot(batch.labels, count).float(),
                batch.settings,
                augment,
                seed=step_seed(seed, batch.step),
            )
            order = torch.argsort(batch.labels)
            yield StageViews(
                settings=batch.settings,
                images=images[order].permute(0, 2, 3, 1).round().clamp(0, 255).byte().numpy(),
                targets=targets[order].numpy(),
            )


def draw_views(experiment: Experiment, path: Path, *, images: int = 8) -> None:
    """Draw the first photos of a run, and below them how every stage sees them, one stage a row, as a PNG.

    A view's size is proportional to its pixels. Below it stands which classes it counts for.

    Args:
        experiment: The run.
        path: Replaced as a whole.
        images: How many photos; fewer where there are not so many.

    Raises:
        UserError: None of the training images can be read.
        OSError: The file cannot be written.
    """
    photos = first_readable(experiment.data.train, experiment.config.train.seed, images)
    class_names = [photos.class_names[label] for label in photos.labels]
    rows = list(stage_views(experiment, photos))
    scale = -(-_SMALLEST_SHOWN // max(row.settings.image_size for row in rows))
    sheet = _Sheet.of(
        columns=len(photos),
        cell=scale * max(row.settings.image_size for row in rows),
        heights=[_PHOTO, *(scale * row.settings.image_size for row in rows)],
    )
    sheet.label(0, f"{len(photos)} photos", f"of {len(experiment.data.train):,} to train on")
    for column in range(len(photos)):
        sheet.draw(
            0, column, _shrunk(decode_image(photos.read(column)), _PHOTO, sheet.cell), class_names[column]
        )
    for number, row in enumerate(rows, start=1):
        sheet.label(
            number, f"stage {number} of {len(rows)}", settings_of(row.settings, experiment.config.augment)
        )
        for column in range(len(photos)):
            pixels = row.images[column].repeat(scale, axis=0).repeat(scale, axis=1)
            sheet.draw(number, column, pixels, shares_of(row.targets[column], class_names))
    with whole_file(path) as temporary:
        sheet.figure.savefig(temporary, dpi=_DPI, format="png")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sheet:
    """A figure with rows of pictures, none of which is resampled."""

    figure: Figure
    cell: int
    """Width of a column's pictures, in pixels."""
    tops: tuple[int, ...]
    """Of the rows, from the figure's lower edge, in pixels."""

    @classmethod
    def of(cls, *, columns: int, cell: int, heights: Sequence[int]) -> _Sheet:
        width = _LABEL_WIDTH + columns * (cell + _GAP) + _MARGIN
        ends = list(accumulate(max(height, _LABEL_HEIGHT) + _CAPTION for height in heights))
        top = ends[-1] + _MARGIN
        return cls(
            figure=Figure(figsize=(width / _DPI, (top + _MARGIN) / _DPI), dpi=_DPI),
            cell=cell,
            tops=tuple(top - end for end in (0, *ends[:-1])),
        )

    def label(self, row: int, title: str, text: str) -> None:
        """Write at the left of a row."""
        self._write(_MARGIN, self.tops[row], title, _TITLE)
        self._write(_MARGIN, self.tops[row] - 19, text, _VALUES)

    def draw(self, row: int, column: int, pixels: UInt8[np.ndarray, "H W 3"], caption: str) -> None:
        """Put a picture into the middle of its column, with a caption below."""
        middle = _LABEL_WIDTH + column * (self.cell + _GAP) + self.cell // 2
        bottom = self.tops[row] - pixels.shape[0]
        self.figure.figimage(pixels, middle - pixels.shape[1] // 2, bottom, origin="upper")
        most = self.cell // _LETTER
        short = caption if len(caption) <= most else caption[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
        self._write(middle, bottom - 5, short, _BELOW)

    def _write(self, x: float, y: float, text: str, font: dict[str, Any]) -> None:
        width, height = self.figure.bbox.size
        self.figure.text(x / width, y / height, text, font, va="top", linespacing=1.3, parse_math=False)


def settings_of(settings: StageSettings, augment: AugmentConfig) -> str:
    """Name what is done to the images, everything that grows, and CutMix where there is any."""
    lines = [
        f"{settings.image_size} px",
        describe(settings, augment),
        f"mixup {settings.mixup_alpha:.2g}",
        f"dropout {settings.dropout_rate:.2g}",
        f"drop-path {settings.drop_path_rate:.2g}",
    ]
    if settings.cutmix_alpha:
        lines.insert(3, f"CutMix {settings.cutmix_alpha:.2g}")
    return "\n".join(lines)


def shares_of(targets: Float[np.ndarray, " N"], class_names: Sequence[str]) -> str:
    """Name the classes that a view counts for, with their shares where there are several."""
    shares: dict[str, float] = {}
    for name, share in zip(class_names, targets.tolist(), strict=True):
        shares[name] = shares.get(name, 0.0) + share
    ordered = sorted(((share, name) for name, share in shares.items() if share >= 0.005), reverse=True)
    if len(ordered) == 1:
        return ordered[0][1]
    return ", ".join(f"{name} {share:.0%}" for share, name in ordered)


def _shrunk(pixels: UInt8[np.ndarray, "H W 3"], height: int, width: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Fit a picture into a box; a small one is enlarged by a whole number."""
    factor = min(height / pixels.shape[0], width / pixels.shape[1])
    if factor >= 1:
        return pixels.repeat(int(factor), axis=0).repeat(int(factor), axis=1)
    size = [max(round(side * factor), 1) for side in pixels.shape[1::-1]]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def first_readable(train: LabelledImages, seed: int, most: int) -> LabelledImages:
    """Return the first images of a run that can be decoded.

    Args:
        train: Its training images.
        seed: Of the run.
        most: How many; fewer where there are not so many.

    Raises:
        UserError: None of the images can be read.
    """
    chosen: list[int] = []
    for index in sample_order(seed, 0, len(train), images=len(train), blocks=train.blocks).tolist():
        try:
            decode_image(train.read(index))
        except (BadImageError, OSError):
            continue
        chosen.append(index)
        if len(chosen) == most:
            break
    if not chosen:
        raise UserError(f"none of the {len(train):,} training images can be read; see effnet data check")
    return train.subset(np.array(chosen))
