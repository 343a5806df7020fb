"""Accuracy from class scores.

Dimension key: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
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


def score(
    logits: Float[Tensor, "N K"],
    labels: Int[Tensor, " N"],
    class_names: tuple[str, ...],
    *,
    bad_images: int,
    output: Output = "softmax",
) -> Scores:
    """Compare class scores with the truth.

    Args:
        logits: Unnormalised scores, in the order of ``class_names``.
        labels: Indices into ``class_names``.
        class_names: Names of the classes.
        bad_images: Reported as it is.
        output: How logits become probabilities.

    Raises:
        UserError: There is no image.
    """
    if not len(labels):
        raise UserError(f"none of the {bad_images} images to evaluate could be read")
    logits = logits.double()
    true_scores = logits.gather(1, labels[:, None])
    # Ties and NaN count against the network, so that a constant output is never called correct.
    rank = (~(logits < true_scores)).sum(1)
    is_correct = rank == 1
    class_top1 = {
        name: is_correct[labels == index].double().mean().item()
        for index, name in enumerate(class_names)
        if bool((labels == index).any())
    }
    return Scores(
        images=len(labels),
        bad_images=bad_images,
        top1=is_correct.double().mean().item(),
        top5=(rank <= 5).double().mean().item() if len(class_names) > 5 else 1.0,
        loss=_loss(logits, labels, output),
        class_top1=class_top1,
    )


def _loss(logits: Float[Tensor, "N K"], labels: Int[Tensor, " N"], output: Output) -> float:
    if output == "softmax":
        return functional.cross_entropy(logits, labels).item()
    # Of the right class -log sigmoid(x), which is softplus(x) - x, and of each other one softplus(x).
    own = logits.gather(1, labels[:, None])[:, 0]
    return (functional.softplus(logits).sum(1) - own).mean().item()
