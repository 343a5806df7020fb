"""Labelled images wherever they are: in class folders, in parquet files of the hub, in scikit-learn.

Nothing is decoded here; `effnet.data.decode` does that when an image is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from effnet.data.images import DataSplit, LabelledImages
from effnet.data.parquet import ParquetTable, read_parquet
from effnet.errors import UserError, did_you_mean

DIGITS = "digits"
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
VAL_NAMES = ("val", "validation", "valid", "test")
"""What the second split may be called; the first one that exists counts."""

_FORMS = "a folder of class folders, a folder of parquet files, or 'digits'"


def open_data(source: str, *, val_fraction: float, split_seed: int) -> DataSplit:
    """Open a data set and split it, unless it comes split.

    Args:
        source: One of
            - a folder of class folders, or one with ``train`` and ``val`` (or ``validation``, ``valid``,
              ``test``) of class folders. Classes are in the order of their names; images may lie deeper.
            - a folder of parquet files, or one with them in ``data``, as the Hugging Face hub has them;
              splits are known by the files' names, such as ``train-00000-of-00001.parquet``
            - ``digits``, scikit-learn's 1,797 images of 8 x 8 pixels
        val_fraction: Share of each class to hold out where there is no validation split.
        split_seed: Which images to hold out, see `stratified_split`.

    Raises:
        UserError: There is no such data, or it cannot be trained on: fewer than two classes, a class
            without images, a validation class that the training images lack.
    """
    train, val = _open_splits(source)
    if len(train.class_names) < 2:
        raise UserError(
            f"'{source}' has only one class, '{train.class_names[0]}'; a classifier needs at least two"
        )
    if val is not None:
        return DataSplit(train=train, val=val, is_drawn=False)
    held_out = stratified_split(train, val_fraction=val_fraction, seed=split_seed)
    return DataSplit(
        train=train.subset(np.flatnonzero(~held_out)),
        val=train.subset(np.flatnonzero(held_out)),
        is_drawn=True,
    )


def open_labelled(source: str) -> LabelledImages:
    """Open labelled images to evaluate on: the validation split where there is one, else all of them.

    Raises:
        UserError: There is no such data.
    """
    train, val = _open_splits(source)
    return val or train


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Return image files in order: files as given, folders as the images in them.

    Raises:
        UserError: A path does not exist, or a folder has no image.
    """
    files: list[Path] = []
    for path in paths:
        found = _image_files(path) if path.is_dir() else [path]
        if not path.exists():
            raise UserError(f"'{path}' does not exist; give image files or folders of them")
        if not found:
            raise UserError(f"folder '{path}' has no image; allowed: {_listed(IMAGE_SUFFIXES)}")
        files += found
    return files


def stratified_split(images: LabelledImages, *, val_fraction: float, seed: int) -> np.ndarray:
    """Return a mask of the images to hold out: of each class the share, at least one, but not all.

    An image's place in the draw is a hash of its name and the seed, so that the split depends neither on
    the order of the files nor on where the folder lies, and images that are added later move few others.

    Raises:
        UserError: A class has a single image.
    """
    hashes = np.array([hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8] for name in images.names])
    held_out = np.zeros(len(images), dtype=bool)
    for label, class_name in enumerate(images.class_names):
        members = np.flatnonzero(images.labels == label)
        if len(members) == 1:
            raise UserError(
                f"class '{class_name}' has a single image, {images.names[members[0]]}; it needs two, one to "
                "train on and one to validate on, or the data a validation split of its own"
            )
        count = min(max(round(val_fraction * len(members)), 1), len(members) - 1)
        held_out[members[np.argsort(hashes[members], kind="stable")[:count]]] = True
    return held_out


def _open_splits(source: str) -> tuple[LabelledImages, LabelledImages | None]:
    path = Path(source).expanduser()
    if source == DIGITS:
        return _digits(), None
    if path.suffix == ".parquet" and path.is_file():
        return _from_tables(source, read_parquet([path]), None)
    if path.is_file():
        raise UserError(f"'{source}' is a file of an unknown kind; give {_FORMS}")
    if not path.is_dir():
        near = _near_names(path)
        hint = did_you_mean(path.name, near) if near else ""
        raise UserError(f"'{source}' does not exist; give {_FORMS}{hint}")
    files = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    if files:
        train_files, val_files = _split_files(source, files)
        return _from_tables(source, read_parquet(train_files), read_parquet(val_files) if val_files else None)
    if not any(_folders(path / "train")):
        return _class_folders(path, path), None
    train = _class_folders(path / "train", path)
    val_path = next((path / name for name in VAL_NAMES if (path / name).is_dir()), None)
    return train, _class_folders(val_path, path, train.class_names) if val_path else None


def _near_names(path: Path) -> list[str]:
    """Return the one name that may have been meant, if any."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    options = [DIGITS, *siblings]
    return options if "; did" in did_you_mean(path.name, options) else []


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _image_files(folder: Path) -> list[Path]:
    found = (file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(
        file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _class_folders(path: Path, source: Path, class_names: tuple[str, ...] | None = None) -> LabelledImages:
    """List the images of a folder of class folders; ``class_names`` are those of the training split."""
    folders = _folders(path)
    if not folders:
        raise UserError(f"'{path}' has no class folders; give {_FORMS}")
    names = class_names or tuple(folder.name for folder in folders)
    files: list[Path] = []
    labels: list[int] = []
    for folder in folders:
        if folder.name not in names:
            raise UserError(
                f"'{folder}' is a class that the training images lack{did_you_mean(folder.name, names)}"
            )
        found = _image_files(folder)
        if not found:
            raise UserError(f"class folder '{folder}' has no image; allowed: {_listed(IMAGE_SUFFIXES)}")
        files += found
        labels += [names.index(folder.name)] * len(found)
    return LabelledImages(
        class_names=names,
        labels=np.array(labels, dtype=np.int64),
        names=tuple(file.relative_to(source).as_posix() for file in files),
        read=lambda index: files[index].read_bytes(),
    )


def _listed(options: Iterable[str]) -> str:
    return ", ".join(sorted(options))


def _split_files(source: str, files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Sort parquet files into training and validation by their names; unknown names are all training."""
    by_split: dict[str, list[Path]] = {}
    for file in files:
        split = next((name for name in ("train", *VAL_NAMES) if _is_of_split(file.stem, name)), "")
        by_split.setdefault(split, []).append(file)
    val = next((by_split[name] for name in VAL_NAMES if name in by_split), [])
    train = by_split.get("train", [] if val else by_split.get("", []))
    if not train:
        raise UserError(
            f"'{source}' has parquet files to validate on ({val[0].name}) but none to train on, such as "
            "train-00000-of-00001.parquet"
        )
    return train, val


def _is_of_split(stem: str, name: str) -> bool:
    return stem == name or (stem.startswith(name) and stem[len(name)] in "-_.")


def _from_tables(
    source: str, train: ParquetTable, val: ParquetTable | None
) -> tuple[LabelledImages, LabelledImages | None]:
    """Number the classes of both splits by the training split's."""
    values: Sequence[int | str] = range(len(train.class_names))
    if not train.class_names:
        values = sorted({label for label in train.labels if label is not None})
    names = train.class_names or tuple(str(value) for value in values)
    index_of = {value: index for index, value in enumerate(values)}
    return (
        _from_table(source, train, names, index_of),
        _from_table(source, val, names, index_of) if val else None,
    )


def _from_table(
    source: str, table: ParquetTable, class_names: tuple[str, ...], index_of: dict[int | str, int]
) -> LabelledImages:
    for label, name in zip(table.labels, table.names, strict=True):
        if label not in index_of:
            raise UserError(
                f"'{source}' has class {label!r} in {name}, which is none of the {len(class_names)} classes "
                f"to train on{did_you_mean(str(label), class_names)}"
            )
    return LabelledImages(
        class_names=class_names,
        labels=np.array([index_of[label] for label in table.labels if label is not None], dtype=np.int64),
        names=table.names,
        read=table.read,
    )


def _digits() -> LabelledImages:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - seconds to import, and for this set only

    data = load_digits()
    grey = np.round(data.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=-1)
    return LabelledImages(
        class_names=tuple(str(name) for name in data.target_names),
        labels=data.target.astype(np.int64),
        names=tuple(f"digits[{index}]" for index in range(len(pixels))),
        read=lambda index: pixels[index],
    )
