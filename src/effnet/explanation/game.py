"""The insertion and deletion game (RISE, 1806.07421, section 4.1): does a map name the pixels that count?

Pixels are taken from an image in the order of a map, the hottest first, and the class's probability is
followed: the sooner it falls, the smaller the area below its curve. Then they are put into a blurred image in
the same order: the sooner it rises, the larger the area.
Dimension key: N images, C channels, S side in pixels, G cells along a side, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from effnet.arch.spec import Output
from effnet.evaluation.metrics import probabilities_of
from effnet.explanation.layers import evaluating
from effnet.nn import Network

STEPS = 16
"""Parts of the pixels that are taken at a time; so many images are answered, for each of the two games."""
BLUR_SHARE = 0.05
"""Deviation of the blur, as a share of the image's side: 11 px of 224. RISE has 5 px."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GameAreas:
    """Areas below the curves of probability over the share of pixels, from 0 to 1 each."""

    deletion: Float[Tensor, " N"]
    """Smaller is better."""
    insertion: Float[Tensor, " N"]
    """Larger is better."""


def play(
    model: Network,
    pixels: Float[Tensor, "N C S S"],
    classes: Int64[Tensor, " N"],
    heat: Float[Tensor, "N S S"],
    *,
    output: Output = "softmax",
    steps: int = STEPS,
) -> GameAreas:
    """Play both games with the maps of some images.

    Pixels are taken away by setting them to 0 behind normalisation, the data's mean colour. Pixels that are
    equally hot follow each other at random, by a fixed seed.

    Args:
        model: The network; it stays as it was.
        pixels: Normalised.
        classes: Whose probability is followed, of each image.
        heat: Of each image; only its order counts.
        output: How logits become probabilities.
        steps: Parts of the pixels that are taken at a time.
    """
    rank = _ranks(heat)
    blurred = blur(pixels)
    taken, put = list[Tensor](), list[Tensor]()
    with evaluating(model), torch.no_grad():
        for step in range(steps + 1):
            chosen = (rank < step / steps)[:, None]
            for curve, start, end in ((taken, pixels, torch.zeros_like(pixels)), (put, blurred, pixels)):
                logits = model(torch.where(chosen, end, start)).float()
                probabilities = probabilities_of(logits, output)
                curve.append(probabilities.gather(1, classes[:, None])[:, 0])
    deletion, insertion = (torch.trapezoid(torch.stack(curve), dim=0) / steps for curve in (taken, put))
    return GameAreas(deletion=deletion.cpu(), insertion=insertion.cpu())


def random_maps(images: int, cells: int, side: int, *, seed: int) -> Float[Tensor, "N S S"]:
    """Return maps that know nothing: random values in cells, enlarged as the feature maps of a layer are.

    Single pixels at random would be no match: networks do not recognise what has holes everywhere.

    Args:
        images: How many.
        cells: Along a side, as of the maps that they are compared with.
        side: Of the maps, in pixels.
        seed: The same one gives the same maps.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(images, 1, cells, cells, generator=generator)
    return functional.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)[:, 0]


def blur(pixels: Float[Tensor, "N C S S"]) -> Float[Tensor, "N C S S"]:
    """Return images in which nothing can be recognised: a Gaussian of `BLUR_SHARE` of their side."""
    deviation = max(BLUR_SHARE * pixels.shape[-1], 0.5)
    reach = min(round(3 * deviation), pixels.shape[-1] - 1)
    distance = torch.arange(-reach, reach + 1, device=pixels.device, dtype=pixels.dtype)
    kernel = torch.exp(-0.5 * (distance / deviation).square())
    channels = pixels.shape[1]
    kernels = (kernel / kernel.sum()).expand(channels, 1, -1)
    padded = functional.pad(pixels, (reach, reach, reach, reach), mode="reflect")
    across = functional.conv2d(padded, kernels[:, :, None, :], groups=channels)
    return functional.conv2d(across, kernels[:, :, :, None], groups=channels)


def _ranks(heat: Float[Tensor, "N S S"]) -> Float[Tensor, "N S S"]:
    """Return the place of each pixel by heat, from 0 (the hottest) to below 1."""
    flat = heat.flatten(1)
    shuffled = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0)).to(heat.device)
    order = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    places = torch.arange(flat.shape[1], device=heat.device, dtype=torch.float32) / flat.shape[1]
    ranks = torch.empty_like(flat, dtype=torch.float32).scatter_(1, order, places.expand_as(flat))
    return ranks.view_as(heat)
