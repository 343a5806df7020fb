"""Augmentation of a whole batch on any device, as `train_image` does it one by one.

What is done to each image is drawn by the same code from the same random numbers, on the CPU; images that
got the same kind of operation are then changed together. The results are bit for bit those of the
one-by-one path, but for about 1 in 100,000 of the pixels that rotation and shear look up: OpenCV 5 computes
the ends of some rows in another order. OpenCV 4 rounds places to 1/1024, which is 1 pixel in 1,000.
Dimension key: N images, n some of them, K operations and P patches an image, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int32, Int64, Shaped, UInt8
from torch import Tensor

from effnet.data.drawn_views import DrawnViews
from effnet.data.operations import KINDS, MATRICES
from effnet.data.patches import noise
from effnet.data.pixels import FILL, Table

Images: TypeAlias = UInt8[Tensor, "n H W 3"]
_Tables: TypeAlias = UInt8[Tensor, "n 256 3"]

_NAMES = np.array(tuple(KINDS))
_RAMP = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)


@dataclass(frozen=True, slots=True)
class _Draws:
    """The operations of one turn for some images of a batch."""

    names: Shaped[np.ndarray, " n"]
    arguments: Float64[np.ndarray, " n"]
    places: Int64[np.ndarray, "n 2"]

    def of(self, rows: Int64[np.ndarray, " m"]) -> _Draws:
        return _Draws(self.names[rows], self.arguments[rows], self.places[rows])


def augment_images(images: UInt8[Tensor, "N H W 3"], drawn: DrawnViews) -> UInt8[Tensor, "N H W 3"]:
    """Mirror the images of a batch, apply the operations that were drawn for them, and cover patches.

    Args:
        images: uint8, RGB, on any device; left as they are.
        drawn: For these images. It stays on the CPU; nothing waits for the device.

    Returns:
        Pixels on the same device.
    """
    mirrored = moved(drawn.is_mirrored, images.device)[:, None, None, None]
    result = torch.where(mirrored, images.flip(2), images)
    for turn in range(drawn.operations.shape[1]):
        draws = _Draws(_NAMES[drawn.operations[:, turn]], drawn.arguments[:, turn], drawn.places[:, turn])
        for names, change in _CHANGES.items():
            rows = np.flatnonzero(np.isin(draws.names, names))
            if len(rows):
                where = moved(rows, images.device)
                result.index_copy_(0, where, change(result.index_select(0, where), draws.of(rows)))
    for patches in drawn.patches.swapaxes(0, 1):
        rows = np.flatnonzero((patches[:, 2] > patches[:, 0]) & (patches[:, 3] > patches[:, 1]))
        if len(rows):
            where = moved(rows, images.device)
            result.index_copy_(0, where, _covered(result.index_select(0, where), patches[rows]))
    return result


def moved(values: Shaped[np.ndarray, "*any"], device: torch.device) -> Tensor:
    """Copy an array to a device without waiting for it."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _map_levels(images: Images, draws: _Draws) -> Images:
    """Apply the operations that are look-up tables, each image by its own."""
    height, width = images.shape[1:3]
    fixed = [
        _fixed_table(str(name), argument) if name not in _TABLES else _IDENTITY
        for name, argument in zip(draws.names, draws.arguments.tolist(), strict=True)
    ]
    tables = moved(np.stack(fixed), images.device)[:, :, None].repeat(1, 1, 3)
    for name, tables_of in _TABLES.items():
        rows = np.flatnonzero(draws.names == name)
        if len(rows):
            where = moved(rows, images.device)
            tables.index_copy_(0, where, tables_of(images.index_select(0, where), draws.of(rows)))
    levels = images.reshape(len(images), height * width, 3).long()
    return tables.gather(1, levels).view_as(images)


_IDENTITY: Table = np.arange(256, dtype=np.uint8)


@lru_cache(maxsize=256)
def _fixed_table(name: str, argument: float) -> Table:
    """Return the table of an operation that does not depend on the image: what it makes of every level."""
    return np.ascontiguousarray(KINDS[name](_RAMP, argument, (0, 0))[0, :, 0])


def _counts(images: Images) -> Int64[Tensor, "n 256 3"]:
    levels = images.reshape(len(images), -1, 3).long()
    counts = torch.zeros((len(images), 256, 3), dtype=torch.int64, device=images.device)
    return counts.scatter_add_(1, levels, torch.ones_like(levels[:1, :1]).expand_as(levels))


def _stretching_tables(images: Images, draws: _Draws) -> _Tables:
    height, width = images.shape[1:3]
    channels = images.reshape(len(images), height * width, 3)
    low, high = (edge.double()[:, None] for edge in (channels.amin(1), channels.amax(1)))
    levels = torch.arange(256, device=images.device, dtype=torch.float64)[:, None]
    scale = torch.full_like(low, 255).div_(high - low)  # a number / a tensor multiplies by the reciprocal
    return torch.where(high == low, levels, levels * scale + -low * scale).clamp_(0, 255).to(torch.uint8)


def _equalizing_tables(images: Images, draws: _Draws) -> _Tables:
    counts = _counts(images)
    levels = torch.arange(256, device=images.device)[:, None]
    highest = (counts > 0).mul(levels).amax(1, keepdim=True)
    step = (counts.sum(1, keepdim=True) - counts.gather(1, highest)) // 255
    below = counts.cumsum(1) - counts
    equal = (below + step // 2) // step.clamp(min=1)
    return torch.where(step == 0, levels, equal).clamp_(0, 255).to(torch.uint8)


def _contrast_tables(images: Images, draws: _Draws) -> _Tables:
    height, width = images.shape[1:3]
    total = _grey(images).sum((1, 2, 3))
    return _contrast_with((2 * total + height * width) // (2 * height * width), draws)


def _released_contrast_tables(images: Images, draws: _Draws) -> _Tables:
    height, width = images.shape[1:3]
    grey = min(height * width // 256, 255)
    return _contrast_with(torch.full((len(images),), grey, device=images.device), draws)


def _contrast_with(mean: Tensor, draws: _Draws) -> _Tables:
    levels = torch.arange(256, dtype=torch.float32, device=mean.device)[None, :, None]
    return _blend(mean.float()[:, None, None], levels, draws).expand(-1, -1, 3)


def _color(images: Images, draws: _Draws) -> Images:
    return _blend(_grey(images).float(), images.float(), draws)


def _sharpness(images: Images, draws: _Draws) -> Images:
    """Blend with the smoothed image: in whole numbers, since 13ths are never in the middle of two levels."""
    levels = images.to(torch.int16)
    if min(images.shape[1:3]) < 3:
        return images
    rows = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = images.float()
    smooth[:, 1:-1, 1:-1] = (2 * (around + 4 * levels[:, 1:-1, 1:-1]) + 13) // 26
    return _blend(smooth, images.float(), draws)


def _move(images: Images, draws: _Draws) -> Images:
    count, height, width, _ = images.shape
    matrices = [
        MATRICES[str(name)](argument, height, width)
        for name, argument in zip(draws.names, draws.arguments.tolist(), strict=True)
    ]
    matrix = moved(np.array(matrices, np.float32), images.device)[..., None, None]
    x = torch.arange(width, dtype=torch.float64, device=images.device)
    y = torch.arange(height, dtype=torch.float32, device=images.device)[:, None]
    # OpenCV rounds to float32 behind each step but the product with x (a fused multiply-add).
    in_row = (matrix[:, :, 1] * y + matrix[:, :, 2]).double()
    column, row = (matrix[:, :, 0] * x + in_row).float().round_().unbind(1)
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = row.clamp_(0, height - 1).long() * width + column.clamp_(0, width - 1).long()
    pixels = images.reshape(count, height * width, 3)
    looked_up = pixels.gather(1, source.view(count, -1, 1).expand(-1, -1, 3)).view_as(images)
    return torch.where(is_inside[..., None], looked_up, _fill(images.device))


def _cutout(images: Images, draws: _Draws) -> Images:
    height, width = images.shape[1:3]
    half_side = draws.arguments.astype(np.int64)[:, None]
    edges = np.concatenate([draws.places - half_side, draws.places + half_side], axis=1)
    left, top, right, bottom = moved(edges, images.device).T[:, :, None, None]
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    is_cut = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    return torch.where(is_cut[..., None], _fill(images.device), images)


def _covered(images: Images, patches: Int64[np.ndarray, "n 6"]) -> Images:
    """Cover each image with its patch, as `effnet.data.patches.cover` does."""
    height, width = images.shape[1:3]
    left, top, right, bottom, key, lowest = moved(patches, images.device).T[..., None, None]
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    is_covered = (left <= x) & (x < right) & (top <= y) & (y < bottom)
    bits = noise(y * width + x + key)
    levels = [channel_levels(bits, channel, lowest).to(torch.uint8) for channel in range(3)]
    return torch.where(is_covered[..., None], torch.stack(levels, dim=-1), images)


def _fill(device: torch.device) -> UInt8[Tensor, " 3"]:
    return moved(np.array(FILL, np.uint8), device)


def _grey(images: Images) -> Int32[Tensor, "n H W 1"]:
    """Return Pillow's grey level."""
    red, green, blue = images.int().unbind(-1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[..., None]


def _blend(base: Tensor, images: Tensor, draws: _Draws) -> Tensor:
    """Blend float32 levels as `effnet.data.pixels` does, in the same order of operations."""
    factors = moved(draws.arguments.astype(np.float32), images.device)
    factors = factors.view(-1, *[1] * (images.dim() - 1))
    return ((images - base) * factors + base).clamp_(0, 255).to(torch.uint8)


_TABLES: dict[str, Callable[[Images, _Draws], _Tables]] = {
    "AutoContrast": _stretching_tables,
    "Equalize": _equalizing_tables,
    "Contrast": _contrast_tables,
    "ContrastAsReleased": _released_contrast_tables,
}
"""The operations whose table depends on the image."""

_CHANGES: dict[tuple[str, ...], Callable[[Images, _Draws], Images]] = {
    (*_TABLES, "Invert", "Posterize", "Solarize", "SolarizeAdd", "Brightness"): _map_levels,
    ("Color",): _color,
    ("Sharpness",): _sharpness,
    tuple(MATRICES): _move,
    ("Cutout",): _cutout,
}
"""The operations that are applied together; Identity is not applied."""


def channel_levels(bits: Tensor, channel: int, lowest: int | Tensor) -> Tensor:
    """Return the levels of a channel of noise: 8 of the 32 bits, or 7 where there is nothing below 128."""
    level: Tensor = bits >> (8 * channel) & 0xFF
    return level | lowest
