"""Several views of each image, whose answers are averaged: test-time augmentation.

Dimension key: N images, K classes, C channels, S side of a view, L side of the image that views are cut from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.evaluation.averaging import mean_logits

Views = Literal["one", "flip", "five-crop", "ten-crop"]
"""``flip``: the usual view and its mirror image. ``five-crop``: four corners and the centre. ``ten-crop``:
these and their mirror images (Krizhevsky et al. 2012, section 4.1)."""
_MARGIN = 256 / 224


def seen_whole(preprocessing: Preprocessing, views: Views) -> Preprocessing:
    """Return how images must be prepared so that views can be cut from them.

    Crops are cut from what the usual view is the middle of: the whole square whose ``crop_fraction`` it is,
    or the whole squashed image, resized so that objects have their usual size. Where the usual view leaves
    out less than an eighth of the side, the image is 8 / 7 times as large as a view, as with 256 and 224
    pixels.
    """
    if views in ("one", "flip"):
        return preprocessing
    fraction = preprocessing.crop_fraction if preprocessing.crop_mode == "center" else 1.0
    side = math.ceil(preprocessing.image_size * max(1 / fraction, _MARGIN) - 1e-6)
    return replace(preprocessing, image_size=side, crop_fraction=1.0)


def answer_views(
    model: Callable[[Float[Tensor, "N C S S"]], Float[Tensor, "N K"]],
    views: Views,
    *,
    image_size: int,
    output: Output,
) -> Callable[[Float[Tensor, "N C L L"]], Float[Tensor, "N K"]]:
    """Return what answers by the mean probability of several views.

    Args:
        model: Normalised pixels in, logits out.
        views: Which.
        image_size: Of a view, in pixels.
        output: How logits become probabilities.

    Returns:
        From images prepared as `seen_whole` says to logits whose probabilities are the mean of the views'.
        Views are answered one after the other, so memory is that of one.
    """
    if views == "one":
        return model

    def answer(images: Float[Tensor, "N C L L"]) -> Float[Tensor, "N K"]:
        answers = [model(view).float() for view in _cut(images, views, image_size)]
        return mean_logits(torch.stack(answers), output)

    return answer


def _cut(images: Float[Tensor, "N C L L"], views: Views, side: int) -> Iterator[Float[Tensor, "N C S S"]]:
    margin = images.shape[-1] - side
    corners = [(0, 0), (0, margin), (margin, 0), (margin, margin)]
    places = [(margin // 2, margin // 2), *(corners if views != "flip" else [])]
    for top, left in places:
        view = images[..., top : top + side, left : left + side]
        yield view.contiguous(memory_format=torch.channels_last)
        if views != "five-crop":
            yield view.flip(-1).contiguous(memory_format=torch.channels_last)
