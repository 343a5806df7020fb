"""Colours of an ICC profile become sRGB, by Little CMS.

Dimension key: H height, W width.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4 << 20
"""Larger profiles are ignored; those of printers have up to about two million bytes."""

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
# Profiles that call themselves sRGB differ from each other by the last bit.
_SAME_LEVELS = 2


def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return how to make sRGB of a profile's colours; it may be used by several threads at once.

    Args:
        profile: As the image file has it.
        mode: Pillow's, of the pixels; of ``L``, ``RGB`` and ``CMYK`` something can be made.

    Returns:
        None where pixels are to be taken as they are: the profile is sRGB's by its effect, whatever its
        name; or it is damaged, too large, or of another kind of colours.
    """
    if mode not in ("L", "RGB", "CMYK") or len(profile) > MAX_PROFILE_BYTES:
        return None
    return _srgb_transform(profile, mode)


def convert_pixels(
    pixels: UInt8[np.ndarray, "H W 3"], transform: ImageCms.ImageCmsTransform
) -> UInt8[np.ndarray, "H W 3"]:
    """Apply a transform of mode RGB."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(transform.apply_in_place(image))


# Each holds its profile and a table of some hundred thousand bytes.
@lru_cache(maxsize=32)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _SRGB,
            mode,
            "RGB",
            # A transform that remembers its last pixel could not be shared by threads.
            flags=ImageCms.Flags.NOCACHE,
        )
        if mode == "CMYK":
            return transform
        swatches = _swatches(mode)
        shown = np.asarray(transform.apply(swatches), dtype=np.int64)
    except (OSError, ValueError, TypeError):
        return None
    is_same = np.abs(shown - np.asarray(swatches.convert("RGB"))).max() <= _SAME_LEVELS
    return None if is_same else transform


def _swatches(mode: str) -> Image.Image:
    """Return every grey, or colours from all over the cube."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube: np.ndarray[Any, Any] = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(cube.reshape(len(levels), -1, 3))
