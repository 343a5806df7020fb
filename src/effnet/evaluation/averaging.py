"""Mean probabilities of several answers to the same image, as logits that give them.

Dimension key: V answers, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from effnet.arch.spec import Output
from effnet.errors import UserError
from effnet.evaluation.answers import Answers
from effnet.evaluation.comparison import check_same_images


def mean_logits(logits: Float[Tensor, "V N K"], output: Output) -> Float[Tensor, "N K"]:
    """Return logits whose probabilities are the mean of the answers' probabilities.

    They come from sums of probabilities: softmax and the inverse of sigmoid, ``log p - log (1 - p)``, are the
    same of a sum and of a mean.
    """
    if output == "softmax":
        return logits.log_softmax(2).logsumexp(0)
    return logsigmoid(logits).logsumexp(0) - logsigmoid(-logits).logsumexp(0)


def mean_answers(members: Sequence[Answers]) -> Answers:
    """Return the mean probabilities of several networks, each counting the same: an ensemble.

    Args:
        members: Of at least one network, to the same images in the same order. The order of their classes may
            differ; the result has the first one's.

    Raises:
        UserError: Networks have other classes or another output, or the images differ.
    """
    first, *others = members
    if not others:
        return first
    for other in others:
        if set(other.class_names) != set(first.class_names):
            raise UserError(
                "only networks with the same classes can answer together; they have "
                f"{len(first.class_names)} and {len(other.class_names)} classes, such as "
                f"'{min(set(first.class_names) ^ set(other.class_names))}' in one of them only"
            )
        if other.output != first.output:
            raise UserError(
                "only networks whose logits become probabilities alike can answer together; they have "
                f"{first.output} and {other.output}"
            )
        check_same_images(first, other)
    stack = [first.logits, *(other.with_classes(first.class_names).logits for other in others)]
    return first.with_logits(mean_logits(torch.from_numpy(np.stack(stack)), first.output).numpy())
