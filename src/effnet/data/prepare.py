"""Preparing data for fast reading: one pass over the originals writes copies in all sizes to be read."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from jaxtyping import Int64

from effnet.arch.io import to_dict
from effnet.config import WorkerChoice
from effnet.data.arrow_files import INDEX_ROWS, INDEX_SCHEMA, SETS_INDEX_SCHEMA
from effnet.data.copies import Copies, CopySettings
from effnet.data.copying import Copier, Prediction, copier, copy_images, predict
from effnet.data.images import LabelledImages
from effnet.data.remote import is_address
from effnet.data.selection import ALL, Selection
from effnet.data.shards import Shard, ShardJournal, ShardRecord, StorePlan, pack, write_shard, write_table
from effnet.data.sources import absolute_source, open_splits
from effnet.data.store import (
    MANIFEST,
    SplitName,
    StoreManifest,
    StoreShard,
    StoreSplit,
    is_store,
)
from effnet.errors import UserError
from effnet.files import whole_file

BAD_IMAGES = "bad-images.jsonl"
LOCK = ".preparing"
"""Held while a folder is written to."""
_Splits: TypeAlias = dict[SplitName, LabelledImages]


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedStore:
    """What preparing came to."""

    path: Path
    images: dict[SplitName, int]
    """In the store."""
    bad_images: int
    """Left out because they cannot be read; they are in ``bad-images.jsonl``."""
    level_bytes: dict[int, int]
    """By short side."""
    made: int
    """Images read by this call; those of earlier calls were not read again."""
    seconds: float
    """For those, without the prediction."""
    prediction: Prediction | None
    """Of the whole, made before the first image was read; None where none was left to read."""

    @property
    def bytes(self) -> int:
        """Of all copies."""
        return sum(self.level_bytes.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the result under its names."""
        prediction = self.prediction and self.prediction.to_dict()
        return asdict(self) | {"path": str(self.path), "bytes": self.bytes, "prediction": prediction}


def predict_store(
    source: str,
    settings: CopySettings,
    *,
    workers: int = 0,
    worker_kind: WorkerChoice = "auto",
    selection: Selection = ALL,
) -> Prediction:
    """Predict a store's size and the time that it takes to prepare; nothing is written.

    Args:
        source: As for `prepare_store`.
        settings: Copies to make.
        workers: Threads; 0: one for each processor.
        worker_kind: As for `prepare_store`.
        selection: Which splits and columns to use.

    Raises:
        UserError: There is no such data, or none of the images that were tried can be read.
    """
    splits = open_originals(source, selection)
    with copier(splits, settings, workers=workers, worker_kind=worker_kind) as copying:
        return predict(copying, settings)


def prepare_store(
    source: str,
    out: Path,
    settings: CopySettings,
    *,
    workers: int = 0,
    worker_kind: WorkerChoice = "auto",
    max_bad_fraction: float = 0.05,
    report: Callable[[int, int], None] | None = None,
    selection: Selection = ALL,
) -> PreparedStore:
    """Write a prepared store, or continue one.

    The files are the same for any number of workers, and however often the work was interrupted. Files
    that were lost from a store are written again.

    Args:
        source: As for `effnet.data.sources.open_data`, but no store. No split is drawn: a store of data
            without a validation split has none, and the same one is drawn from it as from its source.
        out: Folder of the store.
        settings: Copies to make.
        workers: Threads; 0: one for each processor.
        worker_kind: Whether each thread has a process to do its work; ``auto``: where there are four or more,
            and 5,000 images or more that they can read.
        max_bad_fraction: Stop when more than this share of the images cannot be read.
        report: Told how many images are read, by this call or earlier ones, and of how many.
        selection: Which splits and columns to use.

    Raises:
        UserError: Something that was given cannot be used, the disk is too full, or too many images are bad.
        OSError: The disk cannot be written.
    """
    splits = open_originals(source, selection)
    _check_out(out, source)
    with (
        copier(splits, settings, workers=workers, worker_kind=worker_kind) as copying,
        _alone_in(out),
    ):
        journal = ShardJournal(out, _plan(source, splits, settings))
        lost = [record for record in journal.records if _is_lost(out, record)]
        total = sum(map(len, splits.values()))
        done = sum(record.stop - record.start for record in journal.records)
        done -= sum(record.stop - record.start for record in lost)
        work = _Work(
            source=source,
            out=out,
            splits=splits,
            settings=settings,
            journal=journal,
            copier=copying,
            most_bad=int(max_bad_fraction * total),
            report=report,
            bad={(r.split, index): reason for r in journal.records for index, reason in r.bad.items()},
            done=done,
            total=total,
        )
        work.check_bad()
        prediction = predict(copying, settings) if done < total else None
        if prediction is not None:
            _check_disk(out, int((1 - done / total) * prediction.bytes))
        started = time.perf_counter()
        stored = work.write(lost)
        _write_manifest(out, journal.plan, stored)
        seconds = time.perf_counter() - started
    return PreparedStore(
        path=out,
        images={split: contents.images for split, contents in stored.items()},
        bad_images=len(work.bad),
        level_bytes={
            side: sum(record.levels[side].bytes for record in journal.records if record.levels)
            for side in settings.short_sides
        },
        made=work.done - done,
        seconds=seconds,
        prediction=prediction,
    )


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Make a folder, and keep every other process from preparing a store in it."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another process is preparing '{out}'; wait for it, or choose another folder with --out"
        ) from None
    try:
        yield
    finally:
        (out / LOCK).unlink(missing_ok=True)
        lock.release()


def open_originals(source: str, selection: Selection) -> _Splits:
    """Open the images of which a store is to be made.

    Raises:
        UserError: There is no such data, or it is a prepared store itself.
    """
    if is_address(source) or is_store(Path(source).expanduser()):
        raise UserError(
            f"'{source}' is a prepared store; give the originals, since copies of copies are worse"
        )
    train, val = open_splits(source, selection)
    return {"train": train, "val": val} if val else {"train": train}


def _check_out(out: Path, source: str) -> None:
    folder = Path(source).expanduser()
    if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"the store {out} would lie among its images in {source}; choose another folder with --out"
        )
    if out.exists() and not out.is_dir():
        raise UserError(f"'{out}' is a file; choose a new or empty folder with --out")
    if out.is_dir() and not is_store(out) and any(file.name != LOCK for file in out.iterdir()):
        raise UserError(f"'{out}' has files but is no store; choose a new or empty folder with --out")


def _plan(source: str, splits: _Splits, settings: CopySettings) -> StorePlan:
    digest = hashlib.sha256()
    for images in splits.values():
        digest.update(images.labels.tobytes())
        if images.label_sets is not None:
            digest.update(images.label_sets.starts.tobytes() + images.label_sets.values.tobytes())
        for name in images.names:
            digest.update(f"{name}\0".encode())
    return StorePlan(
        source=absolute_source(source),
        settings=settings,
        class_names=splits["train"].class_names,
        images={split: len(images) for split, images in splits.items()},
        fingerprint=digest.hexdigest(),
    )


def _is_lost(out: Path, record: ShardRecord) -> bool:
    """Whether a file of a shard is missing or has not its size."""
    paths = [(out / file.file, file.bytes) for file in record.levels.values()]
    return any(not path.is_file() or path.stat().st_size != size for path, size in paths)


def _check_disk(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"the store needs some {needed / 1e9:.1f} GB more, but the disk of '{out}' has "
            f"{free / 1e9:.1f} GB; give fewer --short-sides, a lower --quality, or another --out"
        )


@dataclass(kw_only=True, slots=True)
class _Work:
    """One pass over the originals."""

    source: str
    out: Path
    splits: _Splits
    settings: CopySettings
    journal: ShardJournal
    copier: Copier
    most_bad: int
    report: Callable[[int, int], None] | None
    bad: dict[tuple[SplitName, int], str]
    """Why which image of the source cannot be read."""
    done: int
    """Images read, by this call or earlier ones."""
    total: int

    def write(self, lost: list[ShardRecord]) -> dict[SplitName, StoreSplit]:
        """Write all shards that are lost or were not written yet, what is bad, and the indices."""
        for record in lost:
            self.write_again(record)
        for split in self.splits:
            self.write_rest(split)
        self.write_bad()
        return {
            split: _write_index(self.out, split, images, self.journal.of(split))
            for split, images in self.splits.items()
        }

    def write_again(self, record: ShardRecord) -> None:
        """Write a shard whose files were lost."""
        indices = range(record.start, record.stop)
        with closing(self._copies(record.split, indices)) as copies:
            shard = next(pack(copies, record.start, self.settings.short_sides))
        if write_shard(self.out, record.split, record.number, shard) != record:
            raise UserError(
                f"images of '{self.source}' have changed since '{self.out}' was prepared from them; "
                "delete the store and prepare it again"
            )

    def write_rest(self, split: SplitName) -> None:
        """Write the shards that a split still lacks."""
        written = self.journal.of(split)
        start = written[-1].stop if written else 0
        with closing(self._copies(split, range(start, len(self.splits[split])))) as copies:
            shards = pack(copies, start, self.settings.short_sides)
            # One shard is written while the next one is made.
            with ThreadPoolExecutor(1, thread_name_prefix="effnet-store") as writer:
                writing: Future[None] | None = None
                for number, shard in enumerate(shards, start=len(written)):
                    if writing is not None:
                        writing.result()
                    writing = writer.submit(self._write, split, number, shard)
                if writing is not None:
                    writing.result()

    def _write(self, split: SplitName, number: int, shard: Shard) -> None:
        self.journal.add(write_shard(self.out, split, number, shard))

    def _copies(self, split: SplitName, indices: range) -> Generator[Copies | str, None, None]:
        with closing(copy_images(self.copier, split, indices)) as made:
            for index, copies in zip(indices, made, strict=True):
                if isinstance(copies, str):
                    self.bad[split, index] = copies
                    self.check_bad()
                self.done += 1
                if self.report is not None:
                    self.report(self.done, self.total)
                yield copies

    def check_bad(self) -> None:
        """Stop where too many images cannot be read."""
        if len(self.bad) <= self.most_bad:
            return
        self.write_bad()
        (split, index), reason = next(iter(self.bad.items()))
        raise UserError(
            f"{len(self.bad)} images cannot be read, more than --max-bad-fraction allows; they are in "
            f"{self.out / BAD_IMAGES}, the first is {self.splits[split].names[index]}: {reason}"
        )

    def write_bad(self) -> None:
        """Name the images that cannot be read, in the order of the source."""
        with whole_file(self.out / BAD_IMAGES) as temporary, temporary.open("w", encoding="utf-8") as file:
            for split, images in self.splits.items():
                for index in sorted(index for bad_split, index in self.bad if bad_split == split):
                    record = {"name": images.names[index], "reason": self.bad[split, index]}
                    file.write(json.dumps(record) + "\n")


def _write_index(
    out: Path, split: SplitName, images: LabelledImages, records: list[ShardRecord]
) -> StoreSplit:
    batches = []
    schema = INDEX_SCHEMA if images.label_sets is None else SETS_INDEX_SCHEMA
    for record in records:
        good = record.good
        sizes = np.array(record.sizes.split(), np.int32).reshape(-1, 2)
        columns = [
            _label_column(images, np.array(good, np.int64)),
            pa.array([images.names[index] for index in good], pa.large_string()),
            sizes[:, 0],
            sizes[:, 1],
        ]
        batches.append(pa.record_batch(columns, schema=schema))
    index = pa.Table.from_batches(batches, schema).combine_chunks()
    if not len(index):
        raise UserError(f"none of the {len(images)} images of split '{split}' can be read")
    return StoreSplit(
        images=len(index),
        index=write_table(out / f"{split}-index.arrow", index.to_batches(INDEX_ROWS)),
        shards=tuple(
            StoreShard(images=len(record.good), levels=record.levels) for record in records if record.levels
        ),
    )


def _label_column(images: LabelledImages, good: Int64[np.ndarray, " M"]) -> pa.Array:
    if images.label_sets is None:
        return pa.array(images.labels[good].astype(np.int32))
    sets = images.label_sets.subset(good)
    starts = pa.array(sets.starts.astype(np.int32))
    return pa.ListArray.from_arrays(starts, sets.values, type=SETS_INDEX_SCHEMA.field("label").type)


def _write_manifest(out: Path, plan: StorePlan, splits: dict[SplitName, StoreSplit]) -> None:
    manifest = StoreManifest(
        encoding=plan.settings.encoding,
        quality=plan.settings.quality,
        chroma=plan.settings.chroma,
        short_sides=plan.settings.short_sides,
        class_names=plan.class_names,
        source=plan.source,
        splits=splits,
    )
    with whole_file(out / MANIFEST) as temporary:
        temporary.write_text(json.dumps(to_dict(manifest), indent=1) + "\n", encoding="utf-8")
