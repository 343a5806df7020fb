"""Whether a prepared store still is what was written: every file's checksum, and every copy decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeAlias

from effnet.data.decode import decode_image
from effnet.data.images import Pyramid
from effnet.data.pillow import BadImageError
from effnet.data.shards import file_sha256
from effnet.data.store import StoredSplit, StoreFile, StoreManifest, copy_levels, level_shape, read_manifest
from effnet.data.threads import run_ahead

_CHECKS_AHEAD = 64
"""That the threads are given at a time."""
_Check: TypeAlias = Callable[[], list["Damage"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What is wrong with a file of a store or with an image in it."""

    name: str
    """Of the file, or of the image and its copy."""
    reason: str


def verify_store(
    path: Path, *, workers: int = 0, report: Callable[[int, int], None] | None = None
) -> tuple[Damage, ...]:
    """Compare every file of a store with its checksum, and decode every copy.

    Args:
        path: Folder of the store.
        workers: Threads; 0: one for each processor.
        report: Told how many files and images are done, and of how many.

    Returns:
        What is damaged, files first; the images of damaged files are not decoded.

    Raises:
        UserError: It is no store.
    """
    manifest = read_manifest(path)
    files = list(manifest.files)
    total = len(files) + sum(split.images for split in manifest.splits.values())
    damaged: list[Damage] = []
    done = 0

    def run(checks: Iterable[Callable[[], list[Damage]]]) -> None:
        nonlocal done
        with closing(run_ahead(_batches(checks), workers)) as batches:
            for _, results in batches:
                damaged.extend(chain.from_iterable(results))
                done += len(results)
                if report is not None:
                    report(done, total)

    run(partial(_check_file, path, file) for file in files)
    damaged_files = {damage.name for damage in damaged}
    if not any(split.index.file in damaged_files for split in manifest.splits.values()):
        run(_copy_checks(path, manifest, damaged_files))
    return tuple(damaged)


def _batches(checks: Iterable[_Check]) -> Iterator[tuple[None, list[_Check]]]:
    remaining = iter(checks)
    while batch := list(islice(remaining, _CHECKS_AHEAD)):
        yield None, batch


def _check_file(path: Path, file: StoreFile) -> list[Damage]:
    try:
        size = (path / file.file).stat().st_size
        if size != file.bytes:
            return [Damage(name=file.file, reason=f"it has {size} of {file.bytes} bytes")]
        if file_sha256(path / file.file) != file.sha256:
            return [Damage(name=file.file, reason="its checksum is not the one that was written")]
    except OSError as error:
        return [Damage(name=file.file, reason=error.strerror or str(error))]
    return []


def _copy_checks(path: Path, manifest: StoreManifest, damaged_files: set[str]) -> Iterator[_Check]:
    """Return one check for each image, of its copies in files that are whole."""
    for split in manifest.splits.values():
        images = StoredSplit(manifest, split, lambda file: path / file.file)
        start = 0
        for shard in split.shards:
            whole = {side for side, file in shard.levels.items() if file.file not in damaged_files}
            for index in range(start, start + shard.images):
                yield partial(_check_copies, images, index, manifest.short_sides, whole)
            start += shard.images


def _check_copies(
    images: StoredSplit, index: int, short_sides: tuple[int, ...], whole: set[int]
) -> list[Damage]:
    pyramid = images.pyramid(index)
    height, width = pyramid.height, pyramid.width
    damaged = []
    for place, side in enumerate(copy_levels(height, width, short_sides)):
        if side in whole and (reason := _copy_damage(pyramid, place, level_shape(height, width, side))):
            damaged.append(Damage(name=f"{images.names[index]} at {side} px", reason=reason))
    return damaged


def _copy_damage(pyramid: Pyramid, place: int, shape: tuple[int, int]) -> str | None:
    try:
        decoded = decode_image(pyramid.read(place))
    except BadImageError as error:
        return error.reason
    except OSError as error:
        return str(error)
    if decoded.shape[:2] != shape:
        return f"it has {decoded.shape[1]} x {decoded.shape[0]} pixels, not {shape[1]} x {shape[0]}"
    return None
