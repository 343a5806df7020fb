"""Accuracy from class scores.

Dimension key: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn import functional

from effnet.arch.spec import Output
from effnet.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How well a network did on a set of labelled images. Accuracies are fractions."""

    images: int
    """Images that could be read, all of which count."""
    bad_images: int
    """Images that could not be read and were left out."""
    top1: float
    top5: float
    """1.0 where there are at most five classes."""
    loss: float
    """Mean over the images, in nats, without label smoothing: cross-entropy, or with a sigmoid the sum of the
    classes' binary cross-entropies."""
    class_top1: dict[str, float]
    """Top-1 accuracy of each class that has an image."""

    def to_dict(self) -> dict[str, Any]:
        """Return the scores under their names."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def probabilities_of(logits: Float[Tensor, "N K"], output: Output) -> Float[Tensor, "N K"]:
    """Return the probabilities that logits stand for: softmax, or sigmoid of each class."""
    return logits.sigmoid() if output == "sigmoid" else logits.softmax(1)


def judge(
    logits: Float[Tensor, "N K"], labels: Int[Tensor, " N"], output: Output = "softmax"
) -> Float64[Tensor, "N 3"]:
    """Compare class scores with the truth, image by image, so that parts may be judged anywhere.

    Args:
        logits: Unnormalised scores.
        labels: The true classes.
        output: How logits become probabilities.

    Returns:
        Of each image its label, the place of that class among all (1: the first) and the loss.
    """
    logits = logits.double()
    own = logits.gather(1, labels[:, None])
    # Ties and NaN count against the network, so that a constant output is never called correct.
    places = (~(logits < own)).sum(1)
    return torch.stack([labels.double(), places.double(), _losses(logits, labels, output)], dim=1)


def _losses(
    logits: Float64[Tensor, "N K"], labels: Int[Tensor, " N"], output: Output
) -> Float64[Tensor, " N"]:
    if output == "softmax":
        return functional.cross_entropy(logits, labels, reduction="none")
    # Of the right class -log sigmoid(x), which is softplus(x) - x, and of each other one softplus(x).
    return functional.softplus(logits).sum(1) - logits.gather(1, labels[:, None])[:, 0]


def score(judged: Float64[Tensor, "N 3"], class_names: tuple[str, ...], *, bad_images: int) -> Scores:
    """Sum up what images came to.

    Args:
        judged: Of `judge`.
        class_names: Names of the classes, in the order of the logits.
        bad_images: Reported as it is.

    Raises:
        UserError: There is no image.
    """
    if not len(judged):
        raise UserError(f"none of the {bad_images} images to evaluate could be read")
    labels, places, losses = judged.unbind(1)
    is_correct = places == 1
    class_top1 = {
        name: is_correct[labels == index].double().mean().item()
        for index, name in enumerate(class_names)
        if bool((labels == index).any())
    }
    return Scores(
        images=len(judged),
        bad_images=bad_images,
        top1=is_correct.double().mean().item(),
        top5=(places <= 5).double().mean().item() if len(class_names) > 5 else 1.0,
        loss=losses.mean().item(),
        class_top1=class_top1,
    )
