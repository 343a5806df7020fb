"""Images that are files of their own, in a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from effnet.data.images import LabelledImages
from effnet.data.names import ArrowNames
from effnet.data.reading import read_file
from effnet.data.walking import allowed_suffixes, is_image_name, list_images
from effnet.errors import UserError, did_you_mean


def visible_folders(path: Path) -> list[Path]:
    """Return the folders in a folder, in order; none where it is no folder."""
    if not path.is_dir():
        return []
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Return image files in order: files as given, folders as the images in them; see `list_images`.

    Raises:
        UserError: A path does not exist, or a folder has no image.
    """
    return [Path(name) for name in list_images(paths)]


def open_class_folders(
    paths: Sequence[Path], source: Path, class_names: tuple[str, ...] = ()
) -> LabelledImages:
    """List the images of folders of class folders; images may lie deeper.

    Args:
        paths: Of the class folders.
        source: Folder from which the images have their names.
        class_names: Of the training split; none: the folders are the classes.

    Raises:
        UserError: A folder has no image, or is none of the classes.
    """
    folders = [folder for path in paths for folder in visible_folders(path)]
    if not folders:
        raise UserError(f"'{paths[0]}' has no class folders; put the images of each class into one")
    names = class_names or tuple(sorted({folder.name for folder in folders}))
    index_of = {name: index for index, name in enumerate(names)}
    files: list[pa.Array] = []
    labels: list[int] = []
    for folder in folders:
        if folder.name not in index_of:
            raise UserError(
                f"'{folder}' is a class that the training images lack{did_you_mean(folder.name, names)}"
            )
        found = _image_names(folder)
        if not found:
            raise UserError(f"class folder '{folder}' has no image; allowed: {allowed_suffixes()}")
        prefix = folder.relative_to(source).as_posix()
        files.append(pa.array([f"{prefix}/{name}" for name in found], pa.large_string()))
        labels.append(index_of[folder.name])
    counts = [len(found) for found in files]
    file_names = ArrowNames(pa.concat_arrays(files))
    return LabelledImages(
        class_names=names,
        labels=np.repeat(np.array(labels, dtype=np.int64), counts),
        names=file_names,
        read=partial(_read_image, str(source), file_names),
    )


def _read_image(source: str, names: Sequence[str], index: int) -> bytes:
    return read_file(f"{source}/{names[index]}")


def _image_names(folder: Path) -> list[str]:
    """Return what is called like an image in a folder and below, as paths from there, in order."""
    found: list[str] = []
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        # What looks like an image but is a folder is a bad image, so that somebody notices it.
        images = [name for name in (*folders, *files) if is_image_name(name)]
        below = Path(path).relative_to(folder).as_posix()
        found += images if below == "." else [f"{below}/{name}" for name in images]
    return sorted(found, key=lambda name: name.split("/"))
