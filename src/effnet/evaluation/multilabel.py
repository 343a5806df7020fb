"""How well a network answers where images have several labels: the numbers of the ImageNet-21k release.

Dimension key: N images, K classes, L labels of an image (rows are filled up with -1), M labels in all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn import functional

from effnet.arch.spec import Output
from effnet.data.processes import Processes
from effnet.errors import UserError
from effnet.evaluation.metrics import Scores

BIN_BITS = 20
"""Scores that share so many leading bits of their 32 count as equal: 2 ** 20 bins, each 0.05 % wide."""
MOST_ANSWERS = 5
"""The most answers of an image that are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiLabelScores:
    """How well a network did on images with several labels. All but ``loss`` are fractions."""

    images: int
    """Images that could be read, all of which count."""
    bad_images: int
    """Images that could not be read and were left out."""
    top1: float
    """Share of the images whose first answer is one of their labels; the release asks for the label with the
    lowest number."""
    top5: float
    """The same of the first five answers."""
    precision_at_1: float
    """Share of the first answers that are labels."""
    precision_at_5: float
    """Share of the first five answers that are labels."""
    recall_at_1: float
    """Share of all labels that are first answers."""
    recall_at_5: float
    """Share of all labels that are among the first five answers of their image."""
    pr_auc: float
    """Area under the curve of precision over recall as global average precision: over all pairs of an image
    and a class, ordered by their probability. The release approximates it by 200 thresholds."""
    pr_auc_error: float
    """Scores are sorted into bins, for which ``pr_auc`` is exact; without bins it differs by at most this."""
    loss: float
    """Mean over the images in nats: mean surprise of an image's labels, or with a sigmoid the sum of the
    classes' binary cross-entropies."""

    def to_dict(self) -> dict[str, Any]:
        """Return the scores under their names."""
        return asdict(self)


AnyScores: TypeAlias = Scores | MultiLabelScores
"""Of images with one label each, or with several."""


class MultiLabelCounts:
    """What is counted while a network answers, in memory that hardly grows with images and classes.

    Several processes may count a part each; the result does not depend on their number.

    Args:
        output: How logits become probabilities.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._bins = torch.zeros(2, 1 << BIN_BITS, dtype=torch.int64)
        """How many classes that are labels, and how many that are none, have their score in which bin."""
        self._per_image: list[Float[Tensor, "N 4"]] = []
        """Labels, those that are first answers, those among five, and loss."""

    def add(self, logits: Float[Tensor, "N K"], labels: Int64[Tensor, "N L"]) -> None:
        """Count some images.

        Args:
            logits: Unnormalised scores, on any device.
            labels: On the same one. Ties and NaN count against the network.
        """
        scores = logits.float()
        if self._output == "softmax":
            scores = scores.log_softmax(1)
        is_label, places = labels >= 0, labels.clamp(min=0)
        own = scores.gather(1, places)
        self._bins += _binned(scores, own[is_label]).cpu()
        ranks = _ranks(scores, own, labels)
        counts = [is_label, is_label & (ranks <= 1), is_label & (ranks <= MOST_ANSWERS)]
        losses = _losses(scores, own, is_label, self._output)
        columns = [count.sum(1).double() for count in counts]
        self._per_image.append(torch.stack([*columns, losses], dim=1).cpu())

    def gather(self, processes: Processes) -> None:
        """Count the images of all processes; each counts its own, and all must make the call."""
        self._bins = processes.total(self._bins)
        own = [torch.zeros(0, 4, dtype=torch.float64), *self._per_image]
        self._per_image = [processes.gather(torch.cat(own))]

    def scores(self, *, bad_images: int) -> MultiLabelScores:
        """Return what the counts come to.

        Raises:
            UserError: There is no image.
        """
        if not sum(map(len, self._per_image)):
            raise UserError(f"none of the {bad_images} images to evaluate could be read")
        labels, first, among_five, loss = torch.cat(self._per_image).T.numpy()
        images, every = len(labels), labels.sum()
        pairs = int(self._bins.sum())
        answers = min(MOST_ANSWERS, pairs // images)
        area, error = average_precision(*self._bins.numpy())
        return MultiLabelScores(
            images=images,
            bad_images=bad_images,
            top1=float((first > 0).mean()),
            top5=float((among_five > 0).mean()),
            precision_at_1=float(first.sum() / images),
            precision_at_5=float(among_five.sum() / images / answers),
            recall_at_1=float(first.sum() / every),
            recall_at_5=float(among_five.sum() / every),
            pr_auc=area,
            pr_auc_error=error,
            loss=float(loss.mean()),
        )


def average_precision(
    labels: Int64[np.ndarray, " B"], others: Int64[np.ndarray, " B"]
) -> tuple[float, float]:
    """Return the average precision of scores in bins, scores of a bin being equal.

    Args:
        labels: How many scores of labels are in each bin, in ascending order of the scores.
        others: How many of classes that are no labels.

    Returns:
        The average precision, and by how much that of the scores themselves may differ at most: of a bin with
        labels, precision lies between what it is if all others come before them and if all come after them.
    """
    is_used = labels > 0
    found, wrong = np.cumsum(labels[::-1])[::-1][is_used], np.cumsum(others[::-1])[::-1][is_used]
    here, wrong_here = labels[is_used], others[is_used]
    weights = here / found.max()
    precision = found / (found + wrong)
    least = (found - here + 1) / (found - here + 1 + wrong)
    most = found / (found + wrong - wrong_here)
    area = float(weights @ precision)
    return area, float(max(weights @ most - area, area - weights @ least))


def _binned(scores: Float[Tensor, "N K"], own: Float[Tensor, " M"]) -> Int64[Tensor, "2 B"]:
    count = 1 << BIN_BITS
    every = _bin_of(scores.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)).flatten()
    wrongly_placed = _bin_of(own.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf))
    placed = _bin_of(own.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf))
    others = torch.bincount(every, minlength=count) - torch.bincount(wrongly_placed, minlength=count)
    return torch.stack([torch.bincount(placed, minlength=count), others])


def _bin_of(scores: Float[Tensor, "*any"]) -> Int32[Tensor, "*any"]:
    """Return the bin of each score; a larger score is in the same or a later one."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0, to which it is equal.
    # As whole numbers, floats ascend; but for negative ones, which descend.
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ascending >> (32 - BIN_BITS)) + (1 << (BIN_BITS - 1))


def _ranks(
    scores: Float[Tensor, "N K"], own: Float[Tensor, "N L"], labels: Int64[Tensor, "N L"]
) -> Int64[Tensor, "N L"]:
    """Return at which place of an image's answers each label comes, from 1; beyond 5 not exactly."""
    places = torch.where(labels >= 0, labels, labels[:, :1])  # Each image has a first label.
    others = scores.scatter(1, places, -torch.inf)
    ahead = others.topk(min(MOST_ANSWERS, scores.shape[1]), dim=1).values
    is_ahead = ~(ahead[:, None, :] < own[:, :, None]) & (ahead[:, None, :] != -torch.inf)
    own = torch.where(labels >= 0, own, -torch.inf).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    among_own = own.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return is_ahead.sum(2) + among_own + 1


def _losses(
    scores: Float[Tensor, "N K"],
    own: Float[Tensor, "N L"],
    is_label: Tensor,
    output: Output,
) -> Float[Tensor, " N"]:
    of_labels = torch.where(is_label, own, 0.0).double().sum(1)
    if output == "softmax":
        return -of_labels / is_label.sum(1)
    # Of a label -log sigmoid(x), which is softplus(x) - x, and of each other class softplus(x).
    return functional.softplus(scores).sum(1, dtype=torch.float64) - of_labels
