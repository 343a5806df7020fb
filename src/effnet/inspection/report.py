"""What a data set was found to be: counts, sizes, and everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effnet.config import DataConfig
from effnet.data.store import SplitName
from effnet.inspection.duplicates import Duplicates
from effnet.inspection.survey import Survey

EXTREME_ASPECT = 4.0
"""An image whose long side is more than this many times its short side is said to be extreme."""
MUCH_SMALLER = 4.0
"""An image whose short side is this many times shorter than that of most is said to be small."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCount:
    """One class, and how many images it has; unreadable ones count."""

    name: str
    train: int
    val: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSizes:
    """Of all images that can be read; pixels, upright."""

    smallest: tuple[int, int]
    """Height and width of the image with the fewest pixels."""
    median: tuple[int, int]
    """Medians of the heights and of the widths."""
    largest: tuple[int, int]
    """Height and width of the image with the most pixels."""
    counts: tuple[tuple[int, int, int], ...]
    """Height, width, and how many images have them, for every size that occurs."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DataReport:
    """What `effnet.inspection.check.check_data` finds.

    Images are numbers from 0; those to validate on come behind those to train on.
    """

    source: str
    config: DataConfig
    found: Survey
    classes: tuple[ClassCount, ...]
    """In the order of the labels."""
    sizes: ImageSizes | None
    """None where no image can be read."""
    duplicates: tuple[Duplicates, ...]
    small: tuple[int, ...]
    """Images with a short side of less than a quarter of the median one."""
    extreme: tuple[int, ...]
    """Images that are more than four times as long as short."""
    uniform: tuple[int, ...]
    """Images that show next to nothing: all their pixels have almost the same brightness."""
    other_files: dict[str, int]
    """How many files in the class folders are no images by their endings, for each ending."""

    @property
    def is_drawn(self) -> bool:
        """Whether the data has no validation split, so that a run draws one."""
        return self.found.data.is_drawn

    @property
    def leaks(self) -> tuple[Duplicates, ...]:
        """Pictures that are in both splits."""
        return tuple(some for some in self.duplicates if some.is_leak)

    @property
    def leaked(self) -> int:
        """How many images to validate on are also there to train on."""
        return sum(self.found.split(image) == "val" for some in self.leaks for image in some.images)

    @property
    def conflicts(self) -> tuple[Duplicates, ...]:
        """Pictures that are in more than one class."""
        return tuple(some for some in self.duplicates if some.is_conflict)

    @property
    def repeats(self) -> tuple[Duplicates, ...]:
        """Pictures that are more than once in one split, always in the same class."""
        return tuple(
            some
            for some in self.duplicates
            if not some.is_conflict and len(some.images) > len({self.found.split(i) for i in some.images})
        )

    @property
    def has_errors(self) -> bool:
        """Whether images cannot be read, are in both splits, or in more than one class."""
        return bool(self.found.unreadable or self.leaks or self.conflicts)

    def repeated(self, split: SplitName) -> int:
        """Return how many images only repeat others of the same split and class."""
        in_split = (sum(self.found.split(image) == split for image in some.images) for some in self.repeats)
        return sum(count - 1 for count in in_split if count > 1)

    def class_of(self, image: int) -> str:
        """Return the name of an image's class."""
        return self.found.data.class_names[int(self.found.labels[image])]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold."""
        return {
            "source": self.source,
            "split": {
                "is_drawn": self.is_drawn,
                "val_fraction": self.config.val_fraction if self.is_drawn else None,
                "split_seed": self.config.split_seed if self.is_drawn else None,
                "train": len(self.found.data.train),
                "val": len(self.found.data.val),
            },
            "classes": [
                {"name": count.name, "train": count.train, "val": count.val} for count in self.classes
            ],
            "formats": dict(self.found.formats.most_common()),
            "colors": dict(self.found.colors.most_common()),
            "sizes": self._sizes_as_dict(),
            "unreadable": [
                self._image_as_dict(image) | {"reason": reason}
                for image, reason in sorted(self.found.unreadable.items())
            ],
            "leaked": self.leaked,
            "conflicts": len(self.conflicts),
            "repeated": {"train": self.repeated("train"), "val": self.repeated("val")},
            "duplicates": [
                {
                    "is_identical": some.is_identical,
                    "has_mirrored": some.has_mirrored,
                    "is_leak": some.is_leak,
                    "is_conflict": some.is_conflict,
                    "images": [
                        self._image_as_dict(image) | {"sha256": self.found.digests[image].tobytes().hex()}
                        for image in some.images
                    ],
                }
                for some in self.duplicates
            ],
            "small": [self._image_as_dict(image) for image in self.small],
            "extreme": [self._image_as_dict(image) for image in self.extreme],
            "uniform": [self._image_as_dict(image) for image in self.uniform],
            "other_files": self.other_files,
        }

    def _image_as_dict(self, image: int) -> dict[str, Any]:
        return {
            "name": self.found.name(image),
            "split": self.found.split(image),
            "class": self.class_of(image),
            "height": int(self.found.heights[image]),
            "width": int(self.found.widths[image]),
        }

    def _sizes_as_dict(self) -> dict[str, Any] | None:
        if self.sizes is None:
            return None
        sizes = {"smallest": self.sizes.smallest, "median": self.sizes.median, "largest": self.sizes.largest}
        return {
            **{name: {"height": height, "width": width} for name, (height, width) in sizes.items()},
            "counts": [
                {"height": height, "width": width, "images": images}
                for height, width, images in self.sizes.counts
            ],
        }
