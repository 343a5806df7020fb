"""``effnet bench input``: how many images a second one core prepares, ours beside others'."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, get_args

import torch

from effnet.bench import ours
from effnet.bench.measure import Pass, Timing, settle_allocator, take_turns
from effnet.bench.methods import BASELINE, DECODING, DECODING_COPIES, PIPELINES, RANDAUGMENTS, Method
from effnet.bench.workload import Photos, UnavailableError, Workload, lay_out, open_stored
from effnet.config import ProgressiveConfig
from effnet.data.copies import CopySettings, sides_for
from effnet.data.images import LabelledImages
from effnet.data.prepare import prepare_store
from effnet.data.store import Encoding
from effnet.schedule.progressive import image_sizes

Task: TypeAlias = Literal["crop", "crop and RandAugment", "RandAugment alone"]
"""A crop is resized and mirrored or not."""

JPEG_BYTES_PER_SECOND = 65e6
"""Of JPEG, what libjpeg-turbo decodes on one core of a server of 2021 (AMD EPYC, 2.45 GHz) at most."""
STAGES = 4
"""Of the run, from the smallest to the largest size, that a store is made for."""

_PACKAGES = ("numpy", "opencv-python-headless", "pillow", "simplejpeg", "timm", "torchvision")
_OPTIONAL_PACKAGES = ("nvidia-dali-cuda130", "ffcv")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One method at one size."""

    task: Task
    image_size: int
    """In pixels."""
    method: str
    images: int
    """In a round."""
    rates: tuple[float, ...]
    """Images a second of CPU time, round by round; in each, all methods of the task and size took turns."""
    median: float
    """Of ``rates``."""
    ratio: float
    """To the task's baseline, timm's transcribed: the median of the rounds' ratios."""
    ratio_range: tuple[float, float]
    """Smallest and largest of the rounds' ratios."""
    file_bytes: float | None
    """Mean size of the JPEG files that were read."""
    share_of_limit: float | None
    """Of what `JPEG_BYTES_PER_SECOND` allows."""
    share_of_decoding: float | None
    """Of what decoding the same files whole, and nothing else, takes on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A method that was not measured."""

    task: Task
    method: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InputReport:
    """All measurements of one call."""

    source: str
    images: int
    mean_bytes: float
    """Of the photos' files."""
    rounds: int
    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
    versions: dict[str, str]
    """Of the libraries compared."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report under its names."""
        return asdict(self)


def bench_input(
    source: str,
    sizes: Sequence[int],
    *,
    images: int = 200,
    rounds: int = 5,
    store: Path | None = None,
    prepare: bool = False,
    randaugment: bool = False,
    announce: Callable[[str], None] | None = None,
) -> InputReport:
    """Measure input pipelines on one core, in turns.

    Every method uses one thread for its work (or one worker process), and is judged by the CPU time of all
    its threads and processes.

    Args:
        source: Data with JPEG files, see `effnet.data.sources.open_data`; its training images count.
        sizes: Image sizes in pixels.
        images: Photos in a round, at most.
        rounds: How often each method takes its turn.
        store: Folder of a store that was prepared from ``source``.
        prepare: Make a store of the photos of each encoding for as long as this takes, with the copies that
            a run of `STAGES` stages needs.
        randaugment: Also measure with RandAugment behind the crop, and RandAugment by itself.
        announce: Told what is measured next.

    Raises:
        UserError: The data or the store cannot be used.
    """
    with _one_thread(), TemporaryDirectory(prefix="effnet-bench-") as folder:
        settle_allocator()
        scratch = Path(folder)
        (scratch / "photos").mkdir()
        photos = lay_out(source, images, scratch / "photos")
        stored = open_stored(store, photos.names) if store else {}
        if prepare and not stored:
            for encoding in get_args(Encoding):
                stored |= _prepared(photos, sizes, scratch / f"store-{encoding}", encoding)
        rows: list[Row] = []
        missing: dict[Missing, None] = {}
        for task, methods in _tasks(randaugment):
            for size in sizes:
                if announce:
                    announce(f"{task}, {size} px")
                workload = Workload(
                    photos=photos, stored=stored, size=size, randaugment=task != "crop", scratch=scratch
                )
                timings, reasons = _timings(workload, methods, rounds)
                rows += _rows(task, workload, methods, timings)
                missing |= {Missing(task=task, method=m, reason=r): None for m, r in reasons.items()}
        return InputReport(
            source=source,
            images=len(photos.files),
            mean_bytes=photos.mean_bytes,
            rounds=rounds,
            rows=tuple(rows),
            missing=tuple(missing),
            versions=_versions(),
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tasks(randaugment: bool) -> list[tuple[Task, tuple[Method, ...]]]:
    if not randaugment:
        return [("crop", PIPELINES)]
    return [("crop", PIPELINES), ("crop and RandAugment", PIPELINES), ("RandAugment alone", RANDAUGMENTS)]


def _prepared(
    photos: Photos, sizes: Sequence[int], out: Path, encoding: Encoding
) -> dict[Encoding, LabelledImages]:
    stages = ProgressiveConfig(stages=STAGES, image_size=(min(sizes), max(sizes)))
    short_sides = sides_for(image_sizes(stages, max(sizes)), evaluated_side=max(sizes))
    prepare_store(str(photos.folder), out, CopySettings(short_sides=short_sides, encoding=encoding))
    return open_stored(out, [file.relative_to(photos.folder).as_posix() for file in photos.files])


def _timings(
    workload: Workload, methods: Sequence[Method], rounds: int
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time what can be timed; return also why the others cannot."""
    passes: dict[str, Pass] = {}
    reasons: dict[str, str] = {}
    with ExitStack() as opened:
        for method in methods:
            try:
                passes[method.name] = opened.enter_context(method.open(workload))
            except UnavailableError as error:
                reasons[method.name] = error.reason
        return take_turns(passes, rounds), reasons


def _rows(task: Task, workload: Workload, methods: Sequence[Method], timings: dict[str, Timing]) -> list[Row]:
    bytes_of: dict[str, float | None] = {"files": workload.photos.mean_bytes}
    if "jpeg" in workload.stored:
        bytes_of["copies"] = _mean_copy(workload)
    decoding_of = {"files": timings.get(DECODING), "copies": timings.get(DECODING_COPIES)}
    rows = []
    for method in methods:
        if method.name not in timings:
            continue
        timing, file_bytes = timings[method.name], bytes_of.get(method.reads)
        ratios, decoding = timing.ratios_to(timings[BASELINE]), decoding_of.get(method.reads)
        rows.append(
            Row(
                task=task,
                image_size=workload.size,
                method=method.name,
                images=timing.images,
                rates=timing.rates,
                median=timing.median,
                ratio=statistics.median(ratios),
                ratio_range=(min(ratios), max(ratios)),
                file_bytes=file_bytes,
                share_of_limit=timing.median * file_bytes / JPEG_BYTES_PER_SECOND if file_bytes else None,
                share_of_decoding=statistics.median(timing.ratios_to(decoding)) if decoding else None,
            )
        )
    return rows


def _mean_copy(workload: Workload) -> float:
    return statistics.mean(map(len, ours.read_copies(workload)))


def _versions() -> dict[str, str]:
    versions = {}
    for package in (*_PACKAGES, *_OPTIONAL_PACKAGES):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
