"""Labelled images wherever they are, by the form of the address that the user gives.

Nothing is decoded here; `effnet.data.decode` does that when an image is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effnet.data.folders import open_class_folders, visible_folders
from effnet.data.hub import HUB, absolute_hub_name, open_hub_data
from effnet.data.images import DataSplit, LabelledImages
from effnet.data.parquet import read_parquet
from effnet.data.remote import is_address, open_remote_store
from effnet.data.rows import number_classes
from effnet.data.splits import VAL_NAMES, split_files, stratified_split
from effnet.data.store import is_store, open_store
from effnet.data.tars import expand_braces, is_tar_name, read_tars, tar_files
from effnet.errors import UserError, did_you_mean

DIGITS = "digits"

_FORMS = (
    "a folder of class folders, of parquet files or of tars, a prepared store or the address of one, "
    "'hf:NAME', or 'digits'"
)
_Splits = tuple[LabelledImages, LabelledImages | None]


def open_data(source: str, *, val_fraction: float, split_seed: int) -> DataSplit:
    """Open a data set and split it, unless it comes split.

    Args:
        source: One of
            - a folder of class folders, or one with ``train`` and ``val`` (or ``validation``, ``valid``,
              ``test``) of class folders. Classes are in the order of their names; images may lie deeper.
            - a folder of parquet files, or one with them in ``data``, as the Hugging Face hub has them, or
              one such file; splits are known by the files' names, such as
              ``train-00000-of-00001.parquet``. See `effnet.data.columns` for the columns.
            - a folder of tars, with splits by the files' names or in ``train`` and ``val``; one tar; or
              several, as ``shards/train-{000000..000146}.tar``. Images have labels beside them as
              webdataset writes them, or each tar is a class. See `effnet.data.tars`.
            - a prepared store, a folder that ``effnet data prepare`` wrote; or the address of one, such as
              ``https://host/store`` or ``s3://bucket/store``. See `effnet.data.remote`.
            - ``hf:NAME``, ``hf:NAME@REVISION``, ``hf:NAME:CONFIG`` or both: a data set of the Hugging Face
              hub, or of a folder that its library reads. See `effnet.data.hub`.
            - ``digits``, scikit-learn's 1,797 images of 8 x 8 pixels
        val_fraction: Share of each class to hold out where there is no validation split.
        split_seed: Which images to hold out, see `effnet.data.splits.stratified_split`.

    Raises:
        UserError: There is no such data, or it cannot be trained on: fewer than two classes, a class
            without images, a validation class that the training images lack.
    """
    train, val = open_splits(source)
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
    train, val = open_splits(source)
    return val or train


def open_splits(source: str) -> _Splits:
    """Open the training images and, where the data comes split, those to validate on.

    Raises:
        UserError: There is no such data.
    """
    if source == DIGITS:
        return _digits(), None
    if is_address(source):
        return open_remote_store(source)
    if source.startswith(HUB):
        return open_hub_data(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(source, path)
    if path.is_file() or "{" in path.name:
        return _open_files(source, path)
    near = _near_names(path)
    hint = did_you_mean(path.name, near) if near else ""
    raise UserError(f"'{source}' does not exist; give {_FORMS}{hint}")


def absolute_source(source: str) -> str:
    """Return what names the same data from any working folder."""
    if source == DIGITS or is_address(source):
        return source
    if source.startswith(HUB):
        return absolute_hub_name(source)
    return str(Path(source).expanduser().resolve())


def _open_folder(source: str, path: Path) -> _Splits:
    if is_store(path):
        return open_store(path)
    if files := sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet")):
        return _open_parquet(source, *split_files(source, files))
    train_path, val_path = _split_folders(path)
    if visible_folders(train_path):  # A tar beside them is where they came from.
        train = open_class_folders(train_path, path)
        return train, open_class_folders(val_path, path, train.class_names) if val_path else None
    if files := tar_files(train_path):
        train_files, val_files = (files, tar_files(val_path)) if val_path else split_files(source, files)
        return _open_tars(source, train_files, val_files)
    raise UserError(f"'{train_path}' has no class folders; give {_FORMS}")


def _open_files(source: str, path: Path) -> _Splits:
    """Open one file, or those of a pattern with braces."""
    files = [path] if path.is_file() else [Path(file) for file in expand_braces(str(path))]
    if all(is_tar_name(file.name) for file in files):
        open_files = _open_tars
    elif all(file.suffix == ".parquet" for file in files):
        open_files = _open_parquet
    else:
        raise UserError(f"'{source}' is a file of an unknown kind; give {_FORMS}")
    if missing := [file for file in files if not file.is_file()]:
        raise UserError(
            f"{len(missing)} of the {len(files)} files of '{source}' do not exist, such as '{missing[0]}'"
        )
    train, val = split_files(source, files) if len(files) > 1 else (files, [])
    return open_files(source, train, val)


def _split_folders(path: Path) -> tuple[Path, Path | None]:
    """Return where the training and the validation images are; without such folders, all are to train on."""
    if not (path / "train").is_dir():
        return path, None
    if not visible_folders(path / "train") and not tar_files(path / "train"):
        return path, None  # It is a class that is called so.
    return path / "train", next((path / name for name in VAL_NAMES if (path / name).is_dir()), None)


def _open_parquet(source: str, train: Sequence[Path], val: Sequence[Path]) -> _Splits:
    return number_classes(source, read_parquet(train), read_parquet(val) if val else None)


def _open_tars(source: str, train: Sequence[Path], val: Sequence[Path]) -> _Splits:
    return number_classes(source, read_tars(train), read_tars(val) if val else None)


def _near_names(path: Path) -> list[str]:
    """Return the one name that may have been meant, if any."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    options = [DIGITS, *siblings]
    return options if "; did" in did_you_mean(path.name, options) else []


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
