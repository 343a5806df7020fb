"""Cutting crops out of a batch of images and resizing them, on any device.

Resizing is linear, and separate for rows and columns: two multiplications by matrices, which are drawn up
for each crop. Results are those of `effnet.data.transforms.resize_crop`, which computes in whole numbers, up
to one level of rounding; with antialias, where both round in between, rarely two.
Dimension key: N images, H height, W width, L either of them, S side of the result.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from effnet.arch.preprocessing import Interpolation

# Beyond this many pixels on either side of a place no filter looks, unless it widens.
_REACH = {"bilinear": 1, "bicubic": 2}


def resize_crops(
    images: UInt8[Tensor, "N H W 3"],
    boxes: Int64[Tensor, "N 4"],
    size: int,
    *,
    interpolation: Interpolation,
    antialias: bool,
) -> UInt8[Tensor, "N S S 3"]:
    """Resize a rectangle of each image to a square.

    Args:
        images: uint8, RGB.
        boxes: Top, left, height and width of each rectangle, in pixels; inside its image.
        size: Side of the squares, in pixels.
        interpolation: As of `resize_crop`.
        antialias: As of `resize_crop`.
    """
    count, height, width, _ = images.shape
    top, left, rows, columns = boxes.to(torch.float32).T[..., None, None]
    vertical = _weights(top, rows, height, size, interpolation, antialias=antialias)
    horizontal = _weights(left, columns, width, size, interpolation, antialias=antialias)
    by_column = images.float().transpose(1, 2).reshape(count, width, height * 3)
    narrowed = (horizontal @ by_column).view(count, size, height, 3)
    if antialias:
        narrowed = _rounded(narrowed)  # as torch and Pillow do in between
    by_row = narrowed.transpose(1, 2).reshape(count, height, size * 3)
    return _rounded(vertical @ by_row).to(torch.uint8).view(count, size, size, 3)


def _weights(
    start: Float[Tensor, "N 1 1"],
    length: Float[Tensor, "N 1 1"],
    pixels: int,
    size: int,
    interpolation: Interpolation,
    *,
    antialias: bool,
) -> Float[Tensor, "N S L"]:
    """Return how much each pixel along an axis counts for each pixel of the result."""
    scale = length / size
    centre = start + (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    widened = scale.clamp(min=1) if antialias else torch.ones_like(scale)
    reach = _REACH[interpolation]
    place = torch.arange(-reach, pixels + reach, device=start.device)
    distance = (place + 0.5 - centre) / widened
    weights = _bilinear(distance) if interpolation == "bilinear" else _bicubic(distance, antialias)
    last = start + length - 1
    if antialias:
        # What lies beyond the crop does not count.
        weights = weights * ((place >= start) & (place <= last))
        weights = weights / weights.sum(-1, keepdim=True)
    # What lies beyond the crop is as its outermost pixel.
    source = torch.maximum(torch.minimum(place.to(start), last), start).long()
    result = weights.new_zeros(*weights.shape[:-1], pixels)
    return result.scatter_add_(-1, source.expand_as(weights), weights)


def _rounded(levels: Tensor) -> Tensor:
    return levels.add_(0.5).floor_().clamp_(0, 255)


def _bilinear(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp_(min=0)


def _bicubic(distance: Tensor, antialias: bool) -> Tensor:
    """Keys' filter: with a = -0.5 Pillow's, with -0.75 OpenCV's."""
    a, x = -0.5 if antialias else -0.75, distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
