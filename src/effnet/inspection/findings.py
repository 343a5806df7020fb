"""What a report comes to: what is wrong, the worst first, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from effnet.inspection.duplicates import Duplicates
from effnet.inspection.report import EXTREME_ASPECT, MUCH_SMALLER, ClassCount, DataReport

FEW_IMAGES = 10
"""A class with fewer training images is worth mentioning."""
MOST_IMBALANCE = 10.0
"""So is one with more than this many times the training images of another."""
_EXAMPLES = 5
_SHOWN_OF_SET = 4

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something about the data that its owner should know."""

    key: str
    """What it is about, in one word."""
    level: Level
    """``error``: a run would lose images, or its numbers would be wrong."""
    title: str
    advice: str
    examples: tuple[str, ...]
    """The first few of the images or classes that it is about, and ``...`` where there are more."""

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as what JSON can hold."""
        return asdict(self)


def findings(report: DataReport) -> tuple[Finding, ...]:
    """Return everything that is wrong with the data, the worst first."""
    return tuple(
        found
        for part in (
            _unreadable,
            _leaks,
            _conflicts,
            _repeats,
            _imbalance,
            _small_classes,
            _unmeasured,
            _notes,
        )
        for found in part(report)
    )


def _unreadable(report: DataReport) -> Iterator[Finding]:
    bad, share = report.found.unreadable, report.config.max_bad_fraction
    if not bad:
        return
    advice = f"Mend or remove them; a run replaces them by others, up to data.max_bad_fraction = {share:g}."
    if len(bad) > share * len(report.found):
        advice = f"Mend or remove them; a run stops at more than data.max_bad_fraction = {share:g}."
    yield Finding(
        key="unreadable",
        level="error",
        title=f"images that cannot be read: {len(bad):,}",
        advice=advice,
        examples=_first(f"{report.found.name(image)}: {reason}" for image, reason in sorted(bad.items())),
    )


def _leaks(report: DataReport) -> Iterator[Finding]:
    advice = "Remove them from the training images; with them, validation accuracy comes out too high."
    if report.is_drawn:
        advice = "The validation split is drawn, and copies fall on both sides of it; keep one of each."
    if report.leaked:
        yield Finding(
            key="leaks",
            level="error",
            title=f"validation images that are also trained on: {report.leaked:,} of "
            f"{len(report.found.data.val):,}",
            advice=advice,
            examples=_sets(report, report.leaks),
        )


def _conflicts(report: DataReport) -> Iterator[Finding]:
    if report.conflicts:
        yield Finding(
            key="conflicts",
            level="error",
            title=f"pictures in more than one class: {len(report.conflicts):,}",
            advice="Keep each in the class where it belongs; no network can give both answers.",
            examples=_sets(report, report.conflicts),
        )


def _repeats(report: DataReport) -> Iterator[Finding]:
    train, val = report.repeated("train"), report.repeated("val")
    if train or val:
        yield Finding(
            key="repeats",
            level="warning",
            title=f"images that repeat others of their split: {train:,} in train, {val:,} in val",
            advice="What is there more often counts for more; keep one of each.",
            examples=_sets(report, report.repeats),
        )


def _imbalance(report: DataReport) -> Iterator[Finding]:
    largest = max(report.classes, key=lambda count: count.train)
    smallest = min(report.classes, key=lambda count: count.train)
    if largest.train > MOST_IMBALANCE * smallest.train:
        yield Finding(
            key="classes",
            level="warning",
            title="classes of very different sizes: up to "
            + (f"{largest.train / smallest.train:.0f} to 1" if smallest.train else "nothing at all"),
            advice="Judge by the accuracy of each class, which effnet evaluate prints, and not by the mean.",
            examples=(_class_line(largest), _class_line(smallest)),
        )


def _small_classes(report: DataReport) -> Iterator[Finding]:
    few = [count for count in report.classes if count.train < FEW_IMAGES]
    if few:
        yield Finding(
            key="classes",
            level="warning",
            title=f"classes with fewer than {FEW_IMAGES} images to train on: {len(few):,}",
            advice="Gather more, join them with other classes, or leave them out.",
            examples=_first(_class_line(count) for count in sorted(few, key=lambda count: count.train)),
        )


def _unmeasured(report: DataReport) -> Iterator[Finding]:
    without = [count for count in report.classes if not count.val]
    if without:
        yield Finding(
            key="classes",
            level="warning",
            title=f"classes without images to validate on: {len(without):,}",
            advice="How well they are told from the others will not be known.",
            examples=_first(_class_line(count) for count in without),
        )


def _notes(report: DataReport) -> Iterator[Finding]:
    forms = (
        ("small", f"images less than 1/{MUCH_SMALLER:g} as large as most", report.small),
        ("extreme", f"images more than {EXTREME_ASPECT:g} times as long as short", report.extreme),
        ("uniform", "images of almost one brightness", report.uniform),
    )
    for key, what, images in forms:
        if images:
            yield Finding(
                key=key,
                level="note",
                title=f"{what}: {len(images):,}",
                advice="See whether they are what they should be.",
                examples=_first(_size_line(report, image) for image in images),
            )
    if report.other_files:
        yield Finding(
            key="files",
            level="note",
            title=f"files among the images that are not read: {sum(report.other_files.values()):,}",
            advice="By their endings they are no images.",
            examples=_first(f"{ending}: {count:,}" for ending, count in report.other_files.items()),
        )


def _first(lines: Iterable[str]) -> tuple[str, ...]:
    first = tuple(islice(lines, _EXAMPLES + 1))
    return first if len(first) <= _EXAMPLES else (*first[:_EXAMPLES], "...")


def _sets(report: DataReport, duplicates: Iterable[Duplicates]) -> tuple[str, ...]:
    return _first(_set_line(report, some.images) for some in duplicates)


def _set_line(report: DataReport, images: tuple[int, ...]) -> str:
    names = " = ".join(report.found.name(image) for image in images[:_SHOWN_OF_SET])
    more = len(images) - _SHOWN_OF_SET
    return f"{names} and {more:,} more" if more > 0 else names


def _class_line(count: ClassCount) -> str:
    return f"{count.name}: {count.train:,} in train, {count.val:,} in val"


def _size_line(report: DataReport, image: int) -> str:
    found = report.found
    return f"{found.name(image)}: {found.widths[image]} x {found.heights[image]} px"
