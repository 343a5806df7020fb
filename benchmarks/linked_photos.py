"""A data set of as many images as are wanted, made of some photos that all have many names."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

from effnet.errors import UserError

SUFFIXES = {".jpg", ".jpeg"}
CLASSES, VAL_IMAGES = 10, 64


def link_photos(photos: Path, out: Path, links: int) -> dict[str, Any]:
    """Make a folder with ``train`` and ``val`` in which each photo is named many times.

    Args:
        photos: Folder with JPEG files at any depth.
        out: Folder to be made.
        links: Names in ``train``.

    Returns:
        What there is.

    Raises:
        UserError: There are no photos.
    """
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"'{photos}' has no JPEG files; give a folder of photos")
    originals = out.with_name(f"{out.name}-originals")
    originals.mkdir(parents=True)
    # Links do not cross file systems.
    copies = [Path(shutil.copyfile(path, originals / f"{number}.jpg")) for number, path in enumerate(found)]
    for split, many in (("train", links), ("val", VAL_IMAGES)):
        for label in range(CLASSES):
            (out / split / f"class{label}").mkdir(parents=True)
        for number in range(many):
            name = out / split / f"class{number % CLASSES}" / f"{number}.jpg"
            name.hardlink_to(copies[number % len(copies)])
    sizes = [path.stat().st_size for path in copies]
    return {"photos": len(copies), "names": links, "mean_bytes": statistics.mean(sizes)}
