"""A report as one HTML page that needs nothing else: pictures are in it, and nothing is fetched."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from effnet.data.crops import Crop
from effnet.data.decode import open_image
from effnet.data.images import Pyramid
from effnet.data.pillow import BadImageError
from effnet.files import whole_file
from effnet.inspection.duplicates import Duplicates
from effnet.inspection.findings import findings
from effnet.inspection.report import DataReport, ImageSizes
from effnet.inspection.survey import read_image

SETS_SHOWN, IMAGES_SHOWN, ROWS_SHOWN = 24, 6, 200
"""Most sets of copies in a section, images of a set, and unreadable images that a page shows."""
_THUMBNAIL_PX = 240
_CELLS_AN_OCTAVE = 4
_CELL_PX = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Picture:
    """An image on the page."""

    data: str
    """A data URI; empty where the image cannot be read any more."""
    is_tiny: bool
    name: str
    class_name: str
    split: str
    size: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pictures:
    """Images that belong together."""

    label: str
    images: tuple[_Picture, ...]
    more: int
    """Images that are not shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Section:
    """Pictures of one kind."""

    key: str
    title: str
    sets: tuple[_Pictures, ...]
    more: int
    """Sets that are not shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chart:
    """How many images have which size; one square for sizes that differ by less than a fifth."""

    cell: int
    """Side of a square, in pixels of the page, as all that follows."""
    width: int
    height: int
    cells: tuple[tuple[int, int, float, str], ...]
    """From the left, from the top, opacity, and what to say about it."""
    x_ticks: tuple[tuple[int, int], ...]
    """Pixels of an image and where to write them."""
    y_ticks: tuple[tuple[int, int], ...]


def write_page(path: Path, report: DataReport) -> None:
    """Write a report as an HTML page of bounded size.

    All counts are complete; of pictures there are some dozens. Names are escaped, and nothing is fetched.

    Args:
        path: Replaced as a whole.
        report: What was found.

    Raises:
        OSError: The file cannot be written.
    """
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    unreadable = sorted(report.found.unreadable.items())
    text = environment.from_string(template).render(
        report=report,
        findings=findings(report),
        sections=_sections(report),
        unreadable=[(report.found.name(image), reason) for image, reason in unreadable[:ROWS_SHOWN]],
        most_in_class=max(count.train + count.val for count in report.classes),
        chart=_chart(report.sizes) if report.sizes else None,
    )
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sections(report: DataReport) -> list[_Section]:
    copies = (
        ("conflicts", "In more than one class", report.conflicts),
        ("leaks", "Trained on and validated on", report.leaks),
        ("repeats", "More than once in a split", report.repeats),
    )
    forms = (
        ("small", "Much smaller than most", report.small),
        ("extreme", "Very long", report.extreme),
        ("uniform", "Almost one brightness", report.uniform),
    )
    sections = [_copies(report, key, title, some) for key, title, some in copies if some]
    return sections + [_forms(report, key, title, images) for key, title, images in forms if images]


def _copies(report: DataReport, key: str, title: str, duplicates: Sequence[Duplicates]) -> _Section:
    shown = duplicates[:SETS_SHOWN]
    return _Section(
        key=key,
        title=title,
        sets=tuple(_pictures(report, _kind(some), some.images, IMAGES_SHOWN) for some in shown),
        more=len(duplicates) - len(shown),
    )


def _forms(report: DataReport, key: str, title: str, images: Sequence[int]) -> _Section:
    return _Section(key=key, title=title, sets=(_pictures(report, "", images, 2 * IMAGES_SHOWN),), more=0)


def _kind(duplicates: Duplicates) -> str:
    if duplicates.is_identical:
        return "the same file"
    return "mirrored" if duplicates.has_mirrored else "changed copies"


def _pictures(report: DataReport, label: str, images: Sequence[int], most: int) -> _Pictures:
    shown = images if len(images) <= most else _from_both_ends(images, most)
    return _Pictures(
        label=label,
        images=tuple(_picture(report, image) for image in shown),
        more=len(images) - len(shown),
    )


def _from_both_ends(images: Sequence[int], most: int) -> list[int]:
    """Choose from the first and the last, so that a set that is in both splits shows both."""
    return [*images[: most // 2], *images[-(most - most // 2) :]]


def _picture(report: DataReport, image: int) -> _Picture:
    found = report.found
    height, width = int(found.heights[image]), int(found.widths[image])
    return _Picture(
        data=_thumbnail(report, image),
        is_tiny=max(height, width) < _THUMBNAIL_PX // 2,
        name=found.name(image),
        class_name=report.class_of(image),
        split=found.split(image),
        size=f"{width} x {height}",
    )


def _thumbnail(report: DataReport, image: int) -> str:
    """Return a small JPEG file as a data URI."""
    try:
        encoded = read_image(report.found.data, image)
        picture = open_image(encoded.read(0) if isinstance(encoded, Pyramid) else encoded)
        whole = Crop(0, 0, picture.width, picture.height)
        pixels, _ = picture.decode(whole, min(_THUMBNAIL_PX, picture.width, picture.height))
    except (BadImageError, OSError):  # It could be read before.
        return ""
    shrink = min(_THUMBNAIL_PX / max(pixels.shape[:2]), 1.0)
    width, height = (max(round(side * shrink), 1) for side in pixels.shape[1::-1])
    small = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=cv2.INTER_AREA)
    file = io.BytesIO()
    Image.fromarray(small).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _chart(sizes: ImageSizes) -> _Chart | None:
    """Count the sizes in squares of a quarter of an octave; None where all images have the same size."""
    if len(sizes.counts) == 1:
        return None
    cells: dict[tuple[int, int], int] = {}
    for height, width, images in sizes.counts:
        cell = (_cell(width), _cell(height))
        cells[cell] = cells.get(cell, 0) + images
    left, right = _octaves(column for column, _ in cells)
    low, high = _octaves(row for _, row in cells)
    most = max(cells.values())
    return _Chart(
        cell=_CELL_PX,
        width=_CELL_PX * (right - left),
        height=_CELL_PX * (high - low),
        cells=tuple(
            (
                _CELL_PX * (column - left),
                _CELL_PX * (high - 1 - row),
                0.15 + 0.85 * math.log1p(images) / math.log1p(most),
                f"{images:,} images of about {_pixels(column + 0.5)} x {_pixels(row + 0.5)} px",
            )
            for (column, row), images in sorted(cells.items())
        ),
        x_ticks=tuple((_pixels(c), _CELL_PX * (c - left)) for c in range(left, right + 1, _CELLS_AN_OCTAVE)),
        y_ticks=tuple((_pixels(r), _CELL_PX * (high - r)) for r in range(low, high + 1, _CELLS_AN_OCTAVE)),
    )


def _cell(pixels: int) -> int:
    return math.floor(_CELLS_AN_OCTAVE * math.log2(pixels))


def _pixels(cell: float) -> int:
    return round(2 ** (cell / _CELLS_AN_OCTAVE))


def _octaves(cells: Iterable[int]) -> tuple[int, int]:
    """Return the whole octaves that cells lie in."""
    ordered = sorted(cells)
    low, high = ordered[0] // _CELLS_AN_OCTAVE, ordered[-1] // _CELLS_AN_OCTAVE + 1
    return low * _CELLS_AN_OCTAVE, high * _CELLS_AN_OCTAVE
