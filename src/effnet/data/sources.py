"""Labelled images wherever they are, by the form of the address that the user gives.

Nothing is decoded here; `effnet.data.decode` does that when an image is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from effnet.config import DataConfig
from effnet.data.folders import open_class_folders, visible_folders
from effnet.data.hub import HUB, absolute_hub_name, open_hub_data
from effnet.data.images import DataSplit, LabelledImages
from effnet.data.parquet import read_parquet
from effnet.data.remote import is_address, open_remote_store
from effnet.data.rows import number_classes
from effnet.data.selection import ALL, COLUMNS, SPLITS, VAL_NAMES, Selection
from effnet.data.splits import split_files, stratified_split, stratified_subset
from effnet.data.store import is_store, open_store
from effnet.data.tars import expand_braces, is_tar_name, read_tars, tar_files
from effnet.errors import UserError, did_you_mean

DIGITS = "digits"

_FORMS = (
    "a folder of class folders, of parquet files or of tars, a prepared store or the address of one, "
    "'hf:NAME', or 'digits'"
)
_Splits = tuple[LabelledImages, LabelledImages | None]


def open_configured(config: DataConfig) -> DataSplit:
    """Open the data that a configuration names and split it, unless it comes split.

    Where a minival is asked for, it is drawn from what would be trained on, and takes the place of the
    validation images.

    Raises:
        UserError: See `open_data`.
    """
    data = open_data(
        config.source,
        val_fraction=config.val_fraction,
        split_seed=config.split_seed,
        selection=Selection.of(config),
    )
    if config.minival_fraction:
        data = _held_out(data.train, config.minival_fraction, config.split_seed)
    if not config.max_train_images:
        return data
    return replace(data, train=stratified_subset(data.train, config.max_train_images, seed=config.split_seed))


def open_data(source: str, *, val_fraction: float, split_seed: int, selection: Selection = ALL) -> DataSplit:
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
        selection: Which splits and columns to use.

    Raises:
        UserError: There is no such data, it lacks what is selected, or it cannot be trained on: fewer than
            two classes, a class without images, a validation class that the training images lack.
    """
    train, val = open_splits(source, selection)
    if len(train.class_names) < 2:
        raise UserError(
            f"'{source}' has only one class, '{train.class_names[0]}'; a classifier needs at least two"
        )
    if val is not None:
        return DataSplit(train=train, val=val, is_drawn=False)
    return _held_out(train, val_fraction, split_seed)


def _held_out(images: LabelledImages, fraction: float, seed: int) -> DataSplit:
    held_out = stratified_split(images, val_fraction=fraction, seed=seed)
    return DataSplit(
        train=images.subset(np.flatnonzero(~held_out)),
        val=images.subset(np.flatnonzero(held_out)),
        is_drawn=True,
    )


def open_labelled(source: str, split: str = "") -> LabelledImages:
    """Open labelled images to evaluate on: the validation split where there is one, else all of them.

    Args:
        source: As for `open_data`.
        split: Names of the splits to evaluate on instead, as ``test`` or ``validation+test``.

    Raises:
        UserError: There is no such data.
    """
    if split:  # That nothing is trained on does not matter here.
        return open_splits(source, Selection(train_split=split))[0]
    train, val = open_splits(source)
    return val or train


def open_splits(source: str, selection: Selection = ALL) -> _Splits:
    """Open the training images and, where the data comes split, those to validate on.

    Raises:
        UserError: There is no such data, or it lacks what is selected.
    """
    if not source.startswith(HUB):
        selection.refuse(source, "streaming")
    if source == DIGITS:
        selection.refuse(source, *SPLITS, *COLUMNS, "class_names")
        return _digits(), None
    if is_address(source):
        selection.refuse(source, *SPLITS, *COLUMNS, "class_names")
        return open_remote_store(source)
    if source.startswith(HUB):
        return open_hub_data(source, selection)
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(source, path, selection)
    if path.is_file() or "{" in path.name:
        return _open_files(source, path, selection)
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


def _open_folder(source: str, path: Path, selection: Selection) -> _Splits:
    if is_store(path):
        selection.refuse(source, *SPLITS, *COLUMNS, "class_names")
        return open_store(path)
    if files := sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet")):
        return _open_parquet(source, *split_files(source, files, selection), selection)
    train, val = _split_folders(source, path, selection)
    if visible_folders(train[0]):  # A tar beside them is where they came from.
        selection.refuse(source, *COLUMNS)
        images = open_class_folders(train, path, selection.names_of_classes())
        return images, open_class_folders(val, path, images.class_names) if val else None
    if tars := [file for folder in train for file in tar_files(folder)]:
        val_tars = [file for folder in val for file in tar_files(folder)]
        are_chosen = selection.has_splits and train != [path]
        parts = (tars, val_tars) if val or are_chosen else split_files(source, tars, selection)
        return _open_tars(source, *parts, selection)
    raise UserError(f"'{train[0]}' has no class folders; give {_FORMS}")


def _open_files(source: str, path: Path, selection: Selection) -> _Splits:
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
    is_split = len(files) > 1 or selection.has_splits
    train, val = split_files(source, files, selection) if is_split else (files, [])
    return open_files(source, train, val, selection)


def _split_folders(source: str, path: Path, selection: Selection) -> tuple[list[Path], list[Path]]:
    """Return where the training and the validation images are; without such folders, all are to train on."""
    if selection.has_splits and not tar_files(path):
        train, val = selection.splits(source, [folder.name for folder in visible_folders(path)])
        return [path / name for name in train], [path / name for name in val]
    if not (path / "train").is_dir():
        return [path], []
    if not visible_folders(path / "train") and not tar_files(path / "train"):
        return [path], []  # It is a class that is called so.
    return [path / "train"], [path / name for name in VAL_NAMES if (path / name).is_dir()][:1]


def _open_parquet(source: str, train: Sequence[Path], val: Sequence[Path], selection: Selection) -> _Splits:
    rows = (read_parquet(train, selection), read_parquet(val, selection) if val else None)
    return number_classes(source, *rows, selection.names_of_classes())


def _open_tars(source: str, train: Sequence[Path], val: Sequence[Path], selection: Selection) -> _Splits:
    selection.refuse(source, "image_column")
    rows = (read_tars(train, selection), read_tars(val, selection) if val else None)
    return number_classes(source, *rows, selection.names_of_classes())


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
        read=partial(_pixels_at, pixels),
    )


def _pixels_at(pixels: UInt8[np.ndarray, "N H W 3"], index: int) -> UInt8[np.ndarray, "H W 3"]:
    return pixels[index]
