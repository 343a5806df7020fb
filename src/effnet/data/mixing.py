"""Mixup (1710.09412) and CutMix (1905.04899) of a batch with itself.

Dimension key: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from effnet.config import AugmentConfig
from effnet.data.device_augment import moved
from effnet.schedule.progressive import StageSettings


def mix_batch(
    images: Float[Tensor, "N C H W"],
    targets: Float[Tensor, "N K"],
    settings: StageSettings,
    config: AugmentConfig,
    *,
    seed: int,
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, "N K"]]:
    """Mix each image and its target with a partner.

    As released: where both alphas are above 0, the first half of the batch gets mixup and the second half
    CutMix; an image's partner is the one at its mirrored place in the same half.

    Args:
        images: Normalised or not: mixing commutes with it.
        targets: Weights of the classes, such as one-hot rows.
        settings: The two alphas; 0 switches either off.
        config: How CutMix weighs targets.
        seed: All random numbers are a function of it, drawn on the CPU: the same on every device.

    Returns:
        Mixed images and targets; the same tensors where both alphas are 0. A row of the targets keeps its
        sum where all rows have the same.
    """
    if not settings.mixup_alpha and not settings.cutmix_alpha:
        return images, targets
    rng = np.random.default_rng(seed)
    middle = len(images)
    if settings.cutmix_alpha:
        middle = len(images) // 2 if settings.mixup_alpha else 0
    first = _mixup(images[:middle], targets[:middle], settings.mixup_alpha, rng)
    second = _cutmix(images[middle:], targets[middle:], settings.cutmix_alpha, config, rng)
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])


def _mixup(
    images: Float[Tensor, "N C H W"], targets: Float[Tensor, "N K"], alpha: float, rng: np.random.Generator
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, "N K"]]:
    if not len(images):
        return images, targets
    drawn = rng.beta(alpha, alpha, len(images))
    own = moved(np.maximum(drawn, 1 - drawn), images.device)[:, None]
    mixed = torch.lerp(images.flip(0), images, own[:, :, None, None].to(images.dtype))
    return mixed, torch.lerp(targets.flip(0), targets, own.to(targets.dtype))


def _cutmix(
    images: Float[Tensor, "N C H W"],
    targets: Float[Tensor, "N K"],
    alpha: float,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Float[Tensor, "N C H W"], Float[Tensor, "N K"]]:
    count, _, height, width = images.shape
    if not count:
        return images, targets
    share = 1 - rng.beta(alpha, alpha, count)
    tops, bottoms = _spans(height, share, rng)
    lefts, rights = _spans(width, share, rng)
    pasted = (bottoms - tops) * (rights - lefts) / (height * width)
    if config.cutmix_label == "batch_mean":
        pasted = np.full_like(pasted, pasted.mean())

    rows = _inside(height, tops, bottoms, images.device)[:, None, :, None]
    columns = _inside(width, lefts, rights, images.device)[:, None, None, :]
    weights = moved(pasted, targets.device)[:, None].to(targets.dtype)
    mixed = torch.where(rows & columns, images.flip(0), images)
    return mixed, torch.lerp(targets, targets.flip(0), weights)


def _spans(
    length: int, share: Float[np.ndarray, " N"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Draw where the boxes begin and end along one axis: ``sqrt(share)`` of it, clipped at the border."""
    side = (length * np.sqrt(share)).astype(np.int64)
    start = rng.integers(length, size=len(share)) - side // 2
    return start.clip(0, length), (start + side).clip(0, length)


def _inside(
    length: int, starts: Int[np.ndarray, " N"], ends: Int[np.ndarray, " N"], device: torch.device
) -> Tensor:
    places = torch.arange(length, device=device)
    return (places >= moved(starts[:, None], device)) & (places < moved(ends[:, None], device))
