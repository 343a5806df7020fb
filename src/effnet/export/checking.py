"""Ask a network and what was made of it about the same images."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.evaluation.answers import Answers, answer_images
from effnet.export.images import CheckImages
from effnet.export.parity import Parity, compare_logits, relative_differences
from effnet.nn import Network

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Source:
    """The network to export, and what its files shall say about it."""

    network: Network
    """In evaluation mode, on the processor."""
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    """At the size to export."""
    output: Output
    origin: str
    """Where the weights came from, for people."""


def answers_of(model: Callable[[Tensor], Tensor], source: Source, check: CheckImages) -> Answers:
    """Return what a network, or whatever computes like it, answers to the images.

    Args:
        model: Normalised pixels in, logits out.
        source: The network with its preprocessing.
        check: The images.
    """
    return answer_images(
        model, check.images, source.preprocessing, device=_CPU, batch_size=32, output=source.output
    )


def compare_with_network(
    model: Callable[[Tensor], Tensor],
    source: Source,
    check: CheckImages,
    expected: Answers,
    most: float | None,
    *,
    report: Callable[[str], None] = lambda text: None,
) -> Parity:
    """Compare what was made of a network with it; where they are far, with double precision too.

    Args:
        model: What was made of the network.
        source: The network.
        check: The images.
        expected: What the network answers to them.
        most: The relative difference beyond which double precision is asked; None: never.
        report: Told that it is.
    """
    answers = answers_of(model, source, check)
    parity = compare_logits(answers, expected, has_labels=check.has_labels)
    if most is None or parity.difference <= most:
        return parity
    report("asking the network again in double precision")
    far = np.flatnonzero(relative_differences(answers.logits, expected.logits) > most)
    double = copy.deepcopy(source.network).double()
    images = replace(check, images=check.images.subset(expected.indices[far]))
    exact = answers_of(lambda pixels: double(pixels.double()), source, images).logits
    return replace(
        parity,
        rounding=float(relative_differences(expected.logits[far], exact).max()),
        exact_difference=float(relative_differences(answers.logits[far], exact).max()),
    )
