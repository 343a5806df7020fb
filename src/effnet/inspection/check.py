"""Look at a data set as a whole before a network does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from effnet.config import DataConfig
from effnet.data.images import DataSplit
from effnet.data.sources import open_configured
from effnet.data.walking import IMAGE_SUFFIXES
from effnet.inspection.duplicates import find_duplicates
from effnet.inspection.fingerprint import SMALLEST_COMPARED
from effnet.inspection.report import EXTREME_ASPECT, MUCH_SMALLER, ClassCount, DataReport, ImageSizes
from effnet.inspection.survey import Announce, survey


def check_data(config: DataConfig, *, announce: Announce | None = None) -> DataReport:
    """Open a data set, as a run would, and look at every image of it.

    Args:
        config: The data, how it is split where it is not, and how many threads look at it.
        announce: Told how far it is.

    Raises:
        UserError: There is no such data, or it cannot be trained on at all.
    """
    data = open_configured(config)
    found = survey(data, workers=config.workers, announce=announce)
    heights, widths = found.heights[found.is_readable], found.widths[found.is_readable]
    short = np.minimum(found.heights, found.widths).astype(float)
    long = np.maximum(found.heights, found.widths).astype(float)
    most = float(np.median(short[found.is_readable])) if len(heights) else 0.0
    return DataReport(
        source=config.source,
        config=config,
        found=found,
        classes=_count_classes(data),
        sizes=_measure(heights, widths) if len(heights) else None,
        duplicates=find_duplicates(found, workers=config.workers),
        small=_places(found.is_readable & (short * MUCH_SMALLER < most)),
        extreme=_places(long > EXTREME_ASPECT * short),
        uniform=_places(found.is_readable & ~found.is_comparable & (short >= SMALLEST_COMPARED)),
        other_files=_other_files(data, Path(config.source).expanduser()),
    )


def _places(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())


def _count_classes(data: DataSplit) -> tuple[ClassCount, ...]:
    train, val = (images.class_counts() for images in (data.train, data.val))
    return tuple(
        ClassCount(name=name, train=in_train, val=in_val)
        for name, in_train, in_val in zip(data.class_names, train.tolist(), val.tolist(), strict=True)
    )


def _measure(heights: np.ndarray, widths: np.ndarray) -> ImageSizes:
    pairs, counts = np.unique(np.stack([heights, widths], axis=1), axis=0, return_counts=True)
    pixels = np.prod(pairs.astype(np.int64), axis=1)
    smallest, largest = pairs[pixels.argmin()].tolist(), pairs[pixels.argmax()].tolist()
    return ImageSizes(
        smallest=(smallest[0], smallest[1]),
        median=(int(np.median(heights)), int(np.median(widths))),
        largest=(largest[0], largest[1]),
        counts=tuple(
            (height, width, n) for (height, width), n in zip(pairs.tolist(), counts.tolist(), strict=True)
        ),
    )


def _other_files(data: DataSplit, source: Path) -> dict[str, int]:
    """Count the files that lie among the images of a folder but are none by their endings."""
    if not (source / data.train.names[0]).is_file():  # The images are no files of their own.
        return {}
    folders = {name.partition("/")[0] for images in (data.train, data.val) for name in images.names}
    endings: Counter[str] = Counter()
    for folder in sorted(folders):
        for file in (source / folder).rglob("*"):
            is_hidden = any(part.startswith(".") for part in file.relative_to(source).parts)
            if not is_hidden and file.suffix.lower() not in IMAGE_SUFFIXES and file.is_file():
                endings[file.suffix.lower() or file.name] += 1
    return dict(endings.most_common())
