"""What the networks of an ablation look at in the same images: V1's figure 7."""

from __future__ import annotations

from pathlib import Path

from effnet.ablation.report import Report
from effnet.api import load, run_validation
from effnet.explanation.explaining import TRUE
from effnet.explanation.gallery import Gallery
from effnet.explanation.images import some_of_each_class

IMAGES = 5
"""Validation images in the picture, one of each class in turns."""


def draw_looks(report: Report, folder: Path, *, device: str = "auto") -> list[Path]:
    """Draw class activation maps of the first finished run of every cell, side by side.

    Args:
        report: Of an ablation; at least one cell must have a finished run.
        folder: Where the pictures will be.
        device: As ``train.device``.

    Returns:
        The pictures that have all networks.

    Raises:
        UserError: The data is not what it was, or none of the images can be read.
        OSError: A file cannot be written.
    """
    runs = {row.cell.name: row.done[0].run for row in report.rows if row.done}
    folder.mkdir(exist_ok=True)
    gallery = Gallery(
        out=folder,
        images=some_of_each_class(run_validation(next(iter(runs.values()))), IMAGES),
        methods=("cam",),
        about=TRUE,
    )
    for name, run in runs.items():
        gallery.add(name, str(run), load(run, device=device))
    return gallery.finish()
