"""Pictures in rows and columns with captions, none of which is resampled twice.

Dimension key: H W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from effnet.files import whole_file

_DPI = 100
_TITLE = {"fontsize": 9, "fontweight": "bold", "color": "#333b44", "ha": "center"}
_BELOW = {"fontsize": 8, "color": "#5f6b78", "ha": "center"}
_LETTER = 6.8
"""Width of a letter in pixels, and then some."""
_MARGIN, _GAP, _LINE = 16, 10, 14


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cell:
    """A picture with lines of text below it."""

    picture: UInt8[np.ndarray, "H H 3"]
    lines: tuple[str, ...]


def draw_sheet(
    titles: Sequence[tuple[str, ...]], rows: Sequence[Sequence[Cell]], path: Path, *, side: int = 168
) -> None:
    """Draw pictures as a PNG, each column below its title.

    Args:
        titles: Of the columns, in lines.
        rows: As many cells each as there are titles.
        path: Replaced as a whole.
        side: Of every picture on the sheet, in pixels.

    Raises:
        OSError: The file cannot be written.
    """
    above = _MARGIN + _LINE * max(len(lines) for lines in titles)
    below = _GAP + _LINE * max(len(cell.lines) for row in rows for cell in row)
    width = 2 * _MARGIN + len(titles) * (side + _GAP) - _GAP
    height = above + len(rows) * (side + below) + _MARGIN
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

    def write(x: float, y: float, lines: tuple[str, ...], font: dict[str, object]) -> None:
        text = "\n".join(_shortened(line, int(side / _LETTER)) for line in lines)
        figure.text(x / width, 1 - y / height, text, font, va="top", linespacing=1.25, parse_math=False)

    for column, lines in enumerate(titles):
        write(_MARGIN + column * (side + _GAP) + side / 2, _MARGIN - 8, lines, _TITLE)
    for number, row in enumerate(rows):
        top = above + number * (side + below)
        for column, cell in enumerate(row):
            left = _MARGIN + column * (side + _GAP)
            shown = cv2.resize(cell.picture, (side, side), interpolation=cv2.INTER_AREA)
            figure.figimage(shown, left, height - top - side, origin="upper")
            write(left + side / 2, top + side + 3, cell.lines, _BELOW)
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")


def _shortened(line: str, most: int) -> str:
    return line if len(line) <= most else line[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
