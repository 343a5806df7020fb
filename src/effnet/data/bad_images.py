"""Images that cannot be used: what is said of them, and when there are too many."""

from __future__ import annotations

from dataclasses import dataclass

from effnet.config import DataConfig
from effnet.data.images import LabelledImages
from effnet.data.pillow import BadImageError
from effnet.errors import UserError

EXAMPLES = 5
"""How many bad images the message names that ends a run."""


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that could not be used, or of which a part is missing."""

    name: str
    reason: str


def bad_reason(error: BadImageError | OSError) -> str:
    """Return why an image cannot be used, in a few words."""
    if isinstance(error, BadImageError):
        return error.reason
    return error.strerror or str(error)


def bad_images(images: LabelledImages, reasons: dict[int, str]) -> tuple[BadImage, ...]:
    """Return images by their names, given why which index cannot be used."""
    return tuple(BadImage(images.names[index], reason) for index, reason in reasons.items())


def too_many_bad(images: LabelledImages, reasons: dict[int, str], config: DataConfig) -> UserError:
    """Return what ends a run of which too many images, by their indices, cannot be used."""
    listed = [f"{images.names[index]}: {reason}" for index, reason in list(reasons.items())[:EXAMPLES]]
    if len(reasons) > EXAMPLES:
        listed.append(f"and {len(reasons) - EXAMPLES} more")
    return UserError(
        f"{len(reasons)} of {len(images)} training images cannot be read ({len(reasons) / len(images):.1%}), "
        f"more than data.max_bad_fraction = {config.max_bad_fraction:g} allows: {'; '.join(listed)}; mend or "
        f"remove them ('effnet data check {config.source}' finds all), or allow more"
    )
