"""Operations on the levels of an image, bit for bit those of Pillow, in OpenCV's vector instructions.

Dimension key: H height, W width. All images are uint8, HWC, RGB, [0, 255] and contiguous.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, Int, Real, UInt8

Pixels: TypeAlias = UInt8[np.ndarray, "H W 3"]
Table: TypeAlias = UInt8[np.ndarray, " 256"]

_FILL_LEVEL = 128
FILL = (_FILL_LEVEL,) * 3
"""Where an operation has moved the image away (as released)."""

_LEVELS = np.arange(256)
_BYTES = _LEVELS.astype(np.uint8)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
_GREY = np.array([[19595, 38470, 7471]], np.float32) / 65536
# OpenCV's float32 arithmetic errs by less than this in a blend by a factor below the largest.
_LARGEST_FACTOR, _BLEND_ERROR = 4, 2.5e-4
# OpenCV rounds to the nearest level where Pillow cuts fractions off.
_CUT_OFF = -0.5 + 2 * _BLEND_ERROR


def invert(image: Pixels) -> Pixels:
    """Return 255 - v."""
    return cv2.bitwise_not(image)


def posterize(image: Pixels, bits: int) -> Pixels:
    """Keep the highest bits of each level.

    Args:
        image: Pixels.
        bits: Clipped to 1 to 8: the release's shift by 8 is one by 7 in TensorFlow's kernel, so that 0 bits
            are 1, and its shift by less than 0 (magnitudes from 22.5) is undefined; here it changes nothing.
    """
    return image & np.uint8(0xFF << (8 - min(max(bits, 1), 8)) & 0xFF)


def solarize(image: Pixels, threshold: int) -> Pixels:
    """Invert the levels from ``threshold`` on; nothing changes where it is above 255."""
    if threshold > 255:
        return image
    inverted: Pixels = image ^ -(image >= max(threshold, 0)).view(np.uint8)
    return inverted


def solarize_add(image: Pixels, addition: int) -> Pixels:
    """Add to the levels below 128."""
    return cv2.add(image, (image < 128).view(np.uint8) * np.uint8(min(addition, 255)))


def autocontrast(image: Pixels) -> Pixels:
    """Stretch each channel to [0, 255]."""
    lows, highs = image.min(0).min(0).tolist(), image.max(0).max(0).tolist()
    tables = [_stretching_table(low, high) for low, high in zip(lows, highs, strict=True)]
    return cv2.LUT(image, np.stack(tables, axis=-1)[None])


def equalize(image: Pixels) -> Pixels:
    """Flatten each channel's histogram."""
    counts = [cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel() for channel in range(3)]
    tables = [_equalizing_table(count.astype(np.int64)) for count in counts]
    return cv2.LUT(image, np.stack(tables, axis=-1)[None])


def brightness(image: Pixels, factor: float) -> Pixels:
    """Blend with black: 0 is black, 1 the image itself."""
    return _blend(np.zeros_like(image), image, factor)


def contrast(image: Pixels, factor: float) -> Pixels:
    """Blend with the image's mean level of grey: 0 is grey, 1 the image itself."""
    mean = int(cv2.mean(_grey(image))[0] + 0.5)
    return _blend(np.full_like(image, mean), image, factor)


def contrast_as_released(image: Pixels, factor: float) -> Pixels:
    """Blend with a grey that depends on the number of pixels instead of their levels.

    The release sums the histogram where it means to average it, and divides by 256: the grey is
    ``H * W / 256``, at most 255, so 64 at 128 px and white from 256 px on.
    """
    height, width, _ = image.shape
    return _blend(np.full_like(image, min(height * width // 256, 255)), image, factor)


def color(image: Pixels, factor: float) -> Pixels:
    """Blend with the image in grey: 0 is grey, 1 the image itself."""
    return _blend(cv2.cvtColor(_grey(image), cv2.COLOR_GRAY2RGB), image, factor)


def sharpness(image: Pixels, factor: float) -> Pixels:
    """Blend with the smoothed image: 0 is smooth, 1 the image itself. The outermost pixels stay."""
    if min(image.shape[:2]) < 3:
        return image
    smooth = image.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, _SMOOTH)[1:-1, 1:-1]
    return _blend(smooth, image, factor)


def affine(image: Pixels, matrix: Float[np.ndarray, "2 3"]) -> Pixels:
    """Move pixels, to the nearest one (as released), and fill the rest with `FILL`.

    Args:
        image: Pixels.
        matrix: From the (x, y, 1) of a pixel's centre in the result to its place in the image.
    """
    height, width, _ = image.shape
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=FILL,
    )


def cutout(image: Pixels, half_side: int, x: int, y: int) -> Pixels:
    """Fill the square of side ``2 * half_side`` around (x, y) with `FILL`; it may reach over the border."""
    image = image.copy()
    top, left = max(y - half_side, 0), max(x - half_side, 0)
    image[top : y + half_side, left : x + half_side] = _FILL_LEVEL
    return image


def _stretching_table(low: int, high: int) -> Table:
    if low == high:
        return _BYTES
    scale = 255.0 / (high - low)
    return _truncate(_LEVELS * scale + -low * scale)


def _equalizing_table(counts: Int[np.ndarray, " 256"]) -> Table:
    step = int(counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
    if step == 0:
        return _BYTES
    below = counts.cumsum() - counts
    return _truncate((below + step // 2) // step)


def _grey(image: Pixels) -> UInt8[np.ndarray, "H W"]:
    # Pillow's integers over 65536: exact in float32, for the sums have no more than 24 bits.
    grey = cv2.transform(image.astype(np.float32), _GREY)
    return np.add(grey, np.float32(0.5)).astype(np.uint8)


def _blend(degenerate: Pixels, image: Pixels, factor: float) -> Pixels:
    blend = _blend_rounded if _rounds_as_pillow(factor) else _blend_as_pillow
    return blend(degenerate, image, factor)


@lru_cache(maxsize=64)
def _rounds_as_pillow(factor: float) -> bool:
    """Whether OpenCV's blend is Pillow's for every pair of levels, however its arithmetic rounds."""
    if factor >= _LARGEST_FACTOR:
        return False
    degenerate, image = (np.repeat(levels[..., None], 3, axis=-1) for levels in np.meshgrid(_BYTES, _BYTES))
    wanted = _blend_as_pillow(degenerate, image, factor)
    return all(
        np.array_equal(_blend_rounded(degenerate, image, factor, offset), wanted)
        for offset in (_CUT_OFF - _BLEND_ERROR, _CUT_OFF + _BLEND_ERROR)
    )


def _blend_rounded(degenerate: Pixels, image: Pixels, factor: float, offset: float = _CUT_OFF) -> Pixels:
    return cv2.addWeighted(image, factor, degenerate, 1 - factor, offset)


def _blend_as_pillow(degenerate: Pixels, image: Pixels, factor: float) -> Pixels:
    # In float32 and this order, because that is what decides how Pillow rounds.
    base = degenerate.astype(np.float32)
    result = image.astype(np.float32)
    result -= base
    result *= np.float32(factor)
    result += base
    return _truncate(result)


def _truncate(levels: Real[np.ndarray, "*any"]) -> UInt8[np.ndarray, "*any"]:
    """Clip and cut off fractions, in place before the last step."""
    result: UInt8[np.ndarray, "*any"] = np.clip(levels, 0, 255, out=levels).astype(np.uint8)
    return result
