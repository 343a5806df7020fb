"""Average the weights of several trainings of one network: Wortsman et al. 2022, Model soups (2203.05482)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from effnet.arch.external import AnySpec, ExternalSpec
from effnet.errors import UserError
from effnet.weights.files import LoadedWeights


def average_weights(parts: Sequence[LoadedWeights]) -> LoadedWeights:
    """Return the mean of weights, each counting the same.

    The statistics of batch norm are averaged as all weights are, and not measured anew. The mean of trainings
    from the same pretrained weights is as a rule about as good as the best of them; that of trainings that
    began with different random weights is useless.

    Args:
        parts: Of one network with the same classes and preprocessing; at least one. Image size and names are
            the first one's.

    Raises:
        UserError: Two of them differ in more than their weights.
    """
    first, *others = parts
    for other in others:
        _check_alike(first, other)
    state = {
        name: _mean([part.state[name] for part in parts]) if tensor.is_floating_point() else tensor
        for name, tensor in first.state.items()
    }
    origin = f"mean of {len(parts)}: {', '.join(part.origin for part in parts)}"
    return replace(first, state=state, origin=origin)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(tensors[0].dtype)


def _check_alike(first: LoadedWeights, other: LoadedWeights) -> None:
    difference = _difference(first, other)
    if difference:
        raise UserError(
            f"only weights of one network can be averaged, but {first.origin} and {other.origin} differ in "
            f"{difference}; average their probabilities instead, with --ensemble"
        )


def _difference(first: LoadedWeights, other: LoadedWeights) -> str:
    """Return in what weights differ that stands against a mean; empty: in nothing."""
    if first.class_names != other.class_names:
        return "their classes, or the order of these"
    if first.output != other.output:
        return f"how logits become probabilities ({first.output} and {other.output})"
    if field := _differing_field(first.spec, other.spec):
        return field
    one, two = first.preprocessing, other.preprocessing
    if one and two and replace(one, image_size=1) != replace(two, image_size=1):
        return "how images are prepared"
    return ""


def _differing_field(one: AnySpec, two: AnySpec) -> str:
    names = f"({one.name} and {two.name})"
    if _architecture(one) != _architecture(two):
        return f"the network {names}"
    for field in fields(one):
        is_layer = field.name not in {"name", "image_size", "train_size", "preprocessing"}
        if is_layer and getattr(one, field.name) != getattr(two, field.name):
            return f"the network's {field.name} {names}"
    return ""


def _architecture(spec: AnySpec) -> str:
    return spec.architecture if isinstance(spec, ExternalSpec) else ""
