"""Images to explain, wherever they are: each with a name, its bytes, and what class it may have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from effnet.data.images import Encoded, LabelledImages
from effnet.data.reading import read_file


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedImage:
    """One image; nothing of it has been read."""

    name: str
    read: Callable[[], Encoded]
    """Raises OSError."""
    labels: tuple[str, ...]
    """Names of which the first one that is a class is its class: of a file, its folders from the inside."""

    @property
    def short_name(self) -> str:
        """The name without its folders."""
        return Path(self.name).name

    def class_among(self, place: Mapping[str, int]) -> int | None:
        """Return the index of its class, given those of all classes; None: it has none of them."""
        return next((place[label] for label in self.labels if label in place), None)


def images_of_files(paths: Iterable[Path]) -> tuple[NamedImage, ...]:
    """Return files as images; the folder that a file is in is its class, where there is such a class."""
    return tuple(
        NamedImage(
            name=str(path),
            read=partial(read_file, path),
            labels=tuple(folder.name for folder in path.absolute().parents),
        )
        for path in paths
    )


def some_of_each_class(images: LabelledImages, most: int) -> tuple[NamedImage, ...]:
    """Return labelled images in turns of all classes, each time the next of each class.

    Args:
        images: With one label each, or the first of several.
        most: How many, where there are as many.
    """
    turns: dict[int, int] = {}
    numbered = []
    for index, label in enumerate(images.labels.tolist()):
        turns[label] = turns.get(label, -1) + 1
        numbered.append((turns[label], label, index))
    return _labelled(images, [index for _, _, index in sorted(numbered)[:most]])


def _labelled(images: LabelledImages, indices: Sequence[int]) -> tuple[NamedImage, ...]:
    return tuple(
        NamedImage(
            name=images.names[index],
            read=partial(images.read, index),
            labels=(images.class_names[int(images.labels[index])],),
        )
        for index in indices
    )
