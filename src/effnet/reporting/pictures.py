"""Pixels as files in the page itself.

Dimension key: H height, W width.
"""

from __future__ import annotations

import base64
import io
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

LARGEST_PX = 240
"""Longest side of a picture in the page."""
_QUALITY = 82


def data_uri(pixels: UInt8[np.ndarray, "H W C"], kind: Literal["JPEG", "PNG"] = "JPEG") -> str:
    """Return a picture as a data URI.

    Args:
        pixels: RGB, or RGBA as PNG.
        kind: JPEG for photos, which are shrunk to `LARGEST_PX`; PNG keeps every pixel.
    """
    if kind == "JPEG":
        pixels = _shrunk(pixels)
    file = io.BytesIO()
    options = {"quality": _QUALITY} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _shrunk(pixels: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H2 W2 C"]:
    factor = LARGEST_PX / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    width, height = (max(round(side * factor), 1) for side in pixels.shape[1::-1])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
