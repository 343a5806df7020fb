"""From image files to heat maps: each image as a network sees it, the answer, and its maps.

Dimension key: N images, S side of the network's view, H W pixels of a map, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from effnet.data.bad_images import BadImage
from effnet.data.images import LabelledImages
from effnet.data.loader import EvalBatch, eval_batches, prepare_images
from effnet.errors import UserError, did_you_mean
from effnet.evaluation.metrics import probabilities_of
from effnet.evaluation.predictor import Predictor
from effnet.explanation.checking import Match, play_matches, play_random
from effnet.explanation.images import NamedImage
from effnet.explanation.layers import HEAD
from effnet.explanation.maps import cells_of, heat_of, signed_maps
from effnet.explanation.methods import DEFAULT_EFFORT, Effort, Method
from effnet.nn import Network

PREDICTED, TRUE = "predicted", "true"
"""Instead of the name of a class to explain: the most probable one, or the image's own."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Explanation:
    """What a network says of one image, and what it looks at."""

    image: str
    view: UInt8[np.ndarray, "S S 3"]
    """What the network sees: cropped and resized, RGB."""
    predicted: str
    """The most probable class."""
    predicted_probability: float
    explained: str
    """The class that the maps are about."""
    explained_probability: float
    maps: dict[Method, Float32[np.ndarray, "S S"]]
    """As of `effnet.explanation.maps.heat_maps`."""
    raw_maps: dict[Method, Float32[np.ndarray, "_ _"]]
    """As of `effnet.explanation.maps.signed_maps`, each at its own size."""
    matches: dict[Method, Match]
    """Of the insertion and deletion game, where it was asked for."""


def explain_images(
    predictor: Predictor,
    images: Sequence[NamedImage],
    methods: Sequence[Method],
    *,
    about: str = PREDICTED,
    layer: str = HEAD,
    effort: Effort = DEFAULT_EFFORT,
    batch_size: int = 8,
    check: bool = False,
) -> Iterator[Explanation | BadImage]:
    """Explain images one after the other; one that cannot be read is told in its place.

    Args:
        predictor: The network with its classes and preprocessing.
        images: In the order of the explanations.
        methods: How.
        about: The class to explain: a name, ``predicted``, or ``true``, the image's own.
        layer: Whose feature maps are weighed.
        effort: Of methods that look at changed images.
        batch_size: Images at a time.
        check: Whether to play the insertion and deletion game with every map.

    Raises:
        UserError: The network has no such class or layer, or a method does not go with it or lacks a package.
    """
    model = network_of(predictor)
    labelled = LabelledImages(
        class_names=predictor.class_names,
        labels=_wanted_classes(about, predictor.class_names, images),
        names=tuple(image.name for image in images),
        read=lambda index: images[index].read(),
    )
    for number, batch in enumerate(
        eval_batches(labelled, predictor.preprocessing, batch_size=batch_size, workers=1)
    ):
        bad = {image.name: image for image in batch.bad}
        found = _explain_batch(
            model, predictor, labelled, batch, methods, layer=layer, effort=effort, check=check
        )
        rows = dict(zip(batch.indices.tolist(), found, strict=True))
        for index in range(number * batch_size, min((number + 1) * batch_size, len(images))):
            yield rows[index] if index in rows else bad[images[index].name]


def network_of(predictor: Predictor) -> Network:
    """Return the network that a predictor asks.

    Raises:
        UserError: It asks an exported file, whose layers are out of sight.
    """
    if isinstance(predictor.model, Network):
        return predictor.model
    raise UserError(
        "an exported file gives answers only, not the layers and gradients that maps are made of; explain "
        "the run or the weights that it was exported from"
    )


def _explain_batch(
    model: Network,
    predictor: Predictor,
    images: LabelledImages,
    batch: EvalBatch,
    methods: Sequence[Method],
    *,
    layer: str,
    effort: Effort,
    check: bool,
) -> list[Explanation]:
    if not len(batch.indices):
        return []
    pixels = prepare_images(batch.images, predictor.preprocessing, predictor.device)
    with torch.no_grad():
        logits = model(pixels).float()
    probabilities = probabilities_of(logits, predictor.output)
    predicted = logits.argmax(1)
    given = batch.labels.to(predicted.device)
    classes = torch.where(given >= 0, given, predicted)
    raw = {
        method: signed_maps(model, pixels, classes, method, layer=layer, effort=effort) for method in methods
    }
    heat = {method: heat_of(found, method, pixels.shape[-1]) for method, found in raw.items()}
    cells = {method: cells_of(method, found.shape[-1], effort) for method, found in raw.items() if check}
    random = {
        count: play_random(model, pixels, classes, count, output=predictor.output, seed=int(batch.indices[0]))
        for count in set(cells.values())
    }
    matches = {
        method: play_matches(model, pixels, classes, heat[method], random[count], output=predictor.output)
        for method, count in cells.items()
    }
    names = predictor.class_names
    return [
        Explanation(
            image=images.names[index],
            view=batch.images[row].numpy(),
            predicted=names[int(predicted[row])],
            predicted_probability=float(probabilities[row, predicted[row]]),
            explained=names[int(classes[row])],
            explained_probability=float(probabilities[row, classes[row]]),
            maps={method: found[row].cpu().numpy() for method, found in heat.items()},
            raw_maps={method: found[row].cpu().numpy() for method, found in raw.items()},
            matches={method: found[row] for method, found in matches.items()},
        )
        for row, index in enumerate(batch.indices.tolist())
    ]


def _wanted_classes(
    about: str, class_names: Sequence[str], images: Sequence[NamedImage]
) -> Int64[np.ndarray, " N"]:
    """Return the class to explain of every image; -1: the most probable one."""
    place = {name: index for index, name in enumerate(class_names)}
    if about == PREDICTED:
        return np.full(len(images), -1, np.int64)
    if about == TRUE:
        return np.array([_own_class(image, place) for image in images], np.int64)
    if about not in place:
        hint = did_you_mean(about, (*class_names[:20], PREDICTED, TRUE))
        raise UserError(f"the network has no class '{about}'{hint}")
    return np.full(len(images), place[about], np.int64)


def _own_class(image: NamedImage, place: dict[str, int]) -> int:
    found = image.class_among(place)
    if found is None:
        raise UserError(
            f"the true class of an image is the folder that it is in, and '{image.name}' is in none that is "
            f"called like one of the network's {len(place)} classes; give the class's name, or '{PREDICTED}'"
        )
    return found
