"""What a step minimises: targets made of labels, and the loss of logits against them.

Dimension key: N images, K classes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from effnet.arch.spec import Output


def class_targets(labels: Int64[Tensor, "N ..."], classes: int, loss: Output) -> Float[Tensor, "N K"]:
    """Return how much of the answer each class is.

    Args:
        labels: One label an image, or several in a row that is filled up with -1; none of them twice.
        classes: K.
        loss: For ``softmax``, the labels of an image share a weight of 1, as released for ImageNet-21k; for
            ``sigmoid``, each of them weighs 1.
    """
    rows = labels.reshape(len(labels), -1)
    weights = (rows >= 0).float()
    if loss == "softmax":
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1.0)
    targets = torch.zeros(len(rows), classes, device=labels.device)
    return targets.scatter_add_(1, rows.clamp(min=0), weights)


def classification_loss(
    logits: Float[Tensor, "N K"], targets: Float[Tensor, "N K"], *, loss: Output, label_smoothing: float
) -> Float[Tensor, ""]:
    """Return the mean loss of some images, in nats.

    Args:
        logits: Unnormalised scores.
        targets: See `class_targets`; perhaps mixed.
        loss: ``softmax``: cross-entropy. ``sigmoid``: binary cross-entropy, summed over the classes as in the
            release's ``custom``; what the release calls ``sigmoid`` is the same divided by K.
        label_smoothing: Share of the targets that is spread evenly over all classes. The release has 0 for
            ImageNet-21k.
    """
    if loss == "softmax":
        return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if label_smoothing:
        targets = torch.lerp(targets, torch.full_like(targets, 1 / targets.shape[1]), label_smoothing)
    total = functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    return total / len(logits)
