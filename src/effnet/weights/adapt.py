"""Fit weights to a network with other classes or other input channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from effnet.weights.convert import State

_STEM = "stem.conv.weight"


def fit_state(
    state: Mapping[str, Tensor],
    fresh: Mapping[str, Tensor],
    *,
    class_names: Sequence[str] | None = None,
    new_class_names: Sequence[str] | None = None,
) -> State:
    """Replace the ends of loaded weights where the network that receives them has others.

    The classifier stays where the classes are the same: the same names, or names unknown on one side and
    the same number. Otherwise it is the network's own, with the loaded rows of the classes that both know.

    Args:
        state: Loaded weights, complete, in our names.
        fresh: State dict of the network that receives them, as initialised.
        class_names: Classes of ``state`` in order, where they are known.
        new_class_names: Classes of the network in order, where they are known.

    Returns:
        A complete state dict with the shapes of ``fresh``.
    """
    fitted = dict(state)
    if _STEM in fresh:  # A network of another library has stems of other names.
        fitted[_STEM] = fit_stem(state[_STEM], fresh[_STEM].shape[1])
    for name in ("classifier.weight", "classifier.bias"):
        fitted[name] = _fit_rows(state[name], fresh[name], class_names, new_class_names)
    return fitted


def fit_stem(kernel: Float[Tensor, "D C R S"], channels: int) -> Float[Tensor, "D E R S"]:
    """Bring the stem's kernel to another number of input channels.

    One channel gets the sum, so that a grey image gives what its copies gave; any other number gets the
    channels repeated in turn and scaled by old / new, so that activations keep their size (as timm does).

    Args:
        kernel: Of D output and C input channels.
        channels: Input channels wanted (E).
    """
    inputs = kernel.shape[1]
    if channels == inputs:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    turns = -(-channels // inputs)
    return kernel.repeat(1, turns, 1, 1)[:, :channels] * (inputs / channels)


def _fit_rows(
    rows: Tensor,
    fresh: Tensor,
    names: Sequence[str] | None,
    new_names: Sequence[str] | None,
) -> Tensor:
    if names is None or new_names is None:
        return rows if len(rows) == len(fresh) else fresh
    if list(names) == list(new_names):
        return rows
    fitted = torch.clone(fresh)
    position = {name: index for index, name in enumerate(names)}
    for index, name in enumerate(new_names):
        if name in position:
            fitted[index] = rows[position[name]]
    return fitted
