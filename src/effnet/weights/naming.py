"""Name the classes of weights that do not bring names, such as those released for ImageNet-21k."""

from __future__ import annotations

from dataclasses import replace

from effnet.arch.class_names import read_class_names
from effnet.errors import UserError
from effnet.weights.files import LoadedWeights
from effnet.weights.networks import RELEASED_21K_CLASSES

UNNAMED = "(unnamed)"
"""The last logit of the weights released for ImageNet-21k: the published file has one name fewer."""


def with_class_names(weights: LoadedWeights, path: str, key: str) -> LoadedWeights:
    """Return weights with the names of a file.

    Args:
        weights: Those that bring no names.
        path: Of the file: as many names as logits, in their order. For the 21,843 logits of the weights that
            were released for ImageNet-21k the 21,842 published names do as well.
        key: What the user set to it, for the message.

    Raises:
        UserError: The weights have names, or the file has more or fewer, or cannot be read.
    """
    if weights.class_names is not None:
        raise UserError(
            f"{key} is '{path}', but {weights.origin} brings the names of its classes; leave it out"
        )
    names, classes = read_class_names(path, key), weights.spec.num_classes
    if len(names) == RELEASED_21K_CLASSES - 1 and classes == RELEASED_21K_CLASSES:
        names = (*names, UNNAMED)
    if len(names) != classes:
        raise UserError(f"{key} '{path}' has {len(names)} names, but {weights.origin} has {classes} classes")
    return replace(weights, class_names=names)
