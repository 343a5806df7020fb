"""The worst mistakes of a network, as it saw them, and where it looked.

Dimension key: N images, K classes, S side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from effnet.data.images import LabelledImages
from effnet.data.loader import prepare_images
from effnet.data.transforms import eval_image
from effnet.errors import UserError
from effnet.evaluation.answers import Answers
from effnet.evaluation.predictor import Predictor
from effnet.explanation.maps import heat_maps
from effnet.explanation.overlay import overlay
from effnet.nn import Network
from effnet.reporting.pictures import data_uri


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """An image whose first answer is wrong."""

    name: str
    labels: tuple[str, ...]
    """Its true classes."""
    predicted: str
    probability: float
    """Of the answer."""
    label_probability: float
    """Of the true class, or the most probable one of several."""
    image: str
    """As the network sees it, a data URI."""
    heat: str
    """The same, coloured by what speaks for the answer; empty where the network cannot be looked into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistakes:
    """Those with the least probability of what is right."""

    count: int
    """Of all wrong answers."""
    worst: tuple[Mistake, ...]
    """Worst first."""
    heat_reason: str
    """Why there are no heat maps; empty where there are some."""


def worst_mistakes(predictor: Predictor, images: LabelledImages, answers: Answers, *, most: int) -> Mistakes:
    """Find the images that a network is most wrong about: those whose true class it finds least probable.

    With a softmax that is the order of their losses.

    Args:
        predictor: The network.
        images: All that it was asked about.
        answers: What it said.
        most: How many to show.

    Raises:
        UserError: An image cannot be read any more.
    """
    probabilities = answers.probabilities
    predicted = probabilities.argmax(1)
    labels = answers.labels[:, None] if answers.labels.ndim == 1 else answers.labels
    own = np.where(labels >= 0, np.take_along_axis(probabilities, labels.clip(min=0), 1), -np.inf)
    wrong = np.flatnonzero(~(labels == predicted[:, None]).any(1))
    order = wrong[np.lexsort((-probabilities[wrong, predicted[wrong]], own[wrong].max(1)))][:most]
    if not len(order):
        return Mistakes(count=0, worst=(), heat_reason="")
    views = np.stack(
        [eval_image(images.read(int(index)), predictor.preprocessing) for index in answers.indices[order]]
    )
    heats, reason = _heats(predictor, views, predicted[order])
    worst = tuple(
        Mistake(
            name=answers.names[place],
            labels=tuple(answers.class_names[label] for label in labels[place] if label >= 0),
            predicted=answers.class_names[predicted[place]],
            probability=float(probabilities[place, predicted[place]]),
            label_probability=float(own[place].max()),
            image=data_uri(view),
            heat=data_uri(heat) if heat is not None else "",
        )
        for place, view, heat in zip(order, views, heats, strict=True)
    )
    return Mistakes(count=len(wrong), worst=worst, heat_reason=reason)


def _heats(
    predictor: Predictor, views: UInt8[np.ndarray, "N S S 3"], classes: Int64[np.ndarray, " N"]
) -> tuple[list[UInt8[np.ndarray, "S S 3"] | None], str]:
    """Return each view coloured by what speaks for the answer; else why the network cannot be looked into."""
    if not isinstance(predictor.model, Network):
        return [None] * len(views), "its layers are not at hand"
    pixels = prepare_images(torch.from_numpy(views), predictor.preprocessing, predictor.device)
    try:
        heats = heat_maps(predictor.model, pixels, torch.from_numpy(classes).to(predictor.device), "cam")
    except UserError as error:
        return [None] * len(views), str(error)
    return [overlay(view, heat) for view, heat in zip(views, heats.cpu().numpy(), strict=True)], ""
