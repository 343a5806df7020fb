"""A prepared store that is somewhere else: its files are fetched when they are needed, or a little before.

They lie in `effnet.data.cache.cache_folder` and are read from there.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, takewhile
from pathlib import Path

import numpy as np
from filelock import FileLock
from jaxtyping import Int64

from effnet.data.cache import (
    FOLDER_VARIABLE,
    LIMIT_VARIABLE,
    cache_folder,
    cache_limit,
    make_room,
    use_cached,
)
from effnet.data.fetching import DELAYS, RemoteFolder
from effnet.data.images import LabelledImages
from effnet.data.order import BLOCKS_AT_A_TIME
from effnet.data.store import MANIFEST, StoreFile, StoreManifest, StoreSplit, open_splits, parse_manifest
from effnet.errors import UnreachableError, UserError

FETCHERS = 4
"""Threads that fetch what will be read soon."""
MOST_OPEN = 8 * BLOCKS_AT_A_TIME
"""Files of a split whose tables are at hand; twice as many may be open, and take room though the cache has
removed them."""
_LEVELS_REMEMBERED = 8 * BLOCKS_AT_A_TIME


def is_address(source: str) -> bool:
    """Whether data is named by an address rather than by a path."""
    return "://" in source


def open_remote_store(
    address: str, *, delays: Sequence[float] = DELAYS
) -> tuple[LabelledImages, LabelledImages | None]:
    """Open the training and the validation images of a store at an address.

    The manifest and the index are fetched at once. Reading an image waits for its file; when that cannot be
    had in spite of all attempts, reading raises `UnreachableError`, here and in all threads.

    Args:
        address: ``https://host/store``, ``s3://bucket/store`` or another one that fsspec knows; it finds keys
            and such where the programs of the service do.
        delays: Seconds between attempts at a file, at most.

    Raises:
        UserError: There is no store, a package is missing, or the cache cannot be used.
        UnreachableError: The connection broke.
    """
    remote = RemoteFolder(address, delays=delays)
    text = remote.read(MANIFEST)
    manifest = parse_manifest(text.decode(errors="replace"), f"{remote.address}/{MANIFEST}")
    name = hashlib.sha256(f"{remote.address}\n".encode() + text).hexdigest()[:16]
    folder = cache_folder() / "stores" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store = _RemoteStore(remote, folder, manifest)
    except OSError as error:
        raise UserError(
            f"the cache folder '{folder}' cannot be used: {error.strerror}; name another one in "
            f"{FOLDER_VARIABLE}"
        ) from None
    train, val = open_splits(manifest, store.locate, most_open=MOST_OPEN)
    return (
        store.expecting(train, manifest.splits["train"]),
        store.expecting(val, manifest.splits["val"]) if val else None,
    )


class _RemoteStore:
    """Has the files of a store fetched; threads may share it."""

    def __init__(self, remote: RemoteFolder, folder: Path, manifest: StoreManifest) -> None:
        self._remote, self._folder = remote, folder
        self._most_expected_bytes = cache_limit() // 2
        self._level_of = {
            file.file: short_side
            for split in manifest.splits.values()
            for shard in split.shards
            for short_side, file in shard.levels.items()
        }
        self._levels_used = deque(manifest.short_sides[:1], maxlen=_LEVELS_REMEMBERED)
        self._wanted: deque[StoreFile] = deque()
        self._fetching: set[str] = set()
        self._fetchers = 0
        self._lock = threading.Lock()

    def locate(self, file: StoreFile) -> Path:
        """Return where a file lies, once it is there; raises UnreachableError."""
        with self._lock:
            if file.file in self._level_of:
                self._levels_used.append(self._level_of[file.file])
        return self._fetched(file)

    def expecting(self, images: LabelledImages, split: StoreSplit) -> LabelledImages:
        """Return images that are told which of them will be read soon."""
        counts = tuple(shard.images for shard in split.shards)
        ends = np.cumsum(counts)

        def expect(indices: Int64[np.ndarray, " M"]) -> None:
            shards = dict.fromkeys(np.searchsorted(ends, indices, side="right").tolist())
            with self._lock:
                levels = sorted(set(self._levels_used))
            self._want([split.shards[shard].levels[level] for shard in shards for level in levels])

        return replace(images, blocks=counts, expect=expect)

    def _want(self, files: list[StoreFile]) -> None:
        """Fetch files in the background, in this order, and forget those that were wanted before."""
        missing = [file for file in files if not self._is_here(file)]
        sizes = accumulate(file.bytes for file in missing)
        # More would push out of the cache what is read before it.
        affordable = list(
            takewhile(lambda item: item[1] <= self._most_expected_bytes, zip(missing, sizes, strict=True))
        )
        with self._lock:
            self._wanted = deque(file for file, _ in affordable if file.file not in self._fetching)
            starting = min(len(self._wanted), FETCHERS - self._fetchers)
            self._fetchers += starting
        for _ in range(starting):
            threading.Thread(target=self._fetch_wanted, name="effnet-fetch", daemon=True).start()

    def _fetch_wanted(self) -> None:
        while (file := self._next_wanted()) is not None:
            with suppress(UnreachableError):  # Whoever reads an image is told.
                self._fetched(file)
            with self._lock:
                self._fetching.discard(file.file)

    def _next_wanted(self) -> StoreFile | None:
        with self._lock:
            if not self._wanted:
                self._fetchers -= 1
                return None
            file = self._wanted.popleft()
            self._fetching.add(file.file)
            return file

    def _is_here(self, file: StoreFile) -> bool:
        try:
            return (self._folder / file.file).stat().st_size == file.bytes
        except OSError:
            return False

    def _fetched(self, file: StoreFile) -> Path:
        path = self._folder / file.file
        try:
            use_cached(path)
            if not self._is_here(file):
                # Threads and processes of this machine that need the same file fetch it once.
                with FileLock(self._folder / f".{file.file}.lock"):
                    if not self._is_here(file):
                        make_room(file.bytes)
                        self._remote.fetch(file, path)
        except OSError as error:
            raise self._remote.give_up(
                f"{file.file} cannot be kept in '{self._folder}': {error.strerror or error}; make room, "
                f"allow less in {LIMIT_VARIABLE} or name another folder in {FOLDER_VARIABLE}"
            ) from error
        return path
