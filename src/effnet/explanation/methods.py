"""The ways to draw a heat map, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from effnet.errors import UserError, did_you_mean

Method = Literal[
    "cam",
    "grad-cam",
    "grad-cam++",
    "layer-cam",
    "eigen-cam",
    "occlusion",
    "integrated-gradients",
]
METHODS: tuple[Method, ...] = get_args(Method)

LAYER_METHODS: frozenset[Method] = frozenset({"cam", "grad-cam", "grad-cam++", "layer-cam", "eigen-cam"})
"""Those that weigh the feature maps of a layer; the others ask for the logits of changed images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """How finely the methods look that ask for the logits of many changed images."""

    window_share: float = 0.15
    """Side of occlusion's grey square, as a share of the image's, above 0 and up to 1."""
    stride_share: float = 0.075
    """Distance between two places of the square, as a share of the image's side, above 0 and up to 1."""
    steps: int = 50
    """Images between the baseline and the image at which integrated gradients takes gradients, at least 1."""
    batch_size: int = 32
    """Changed images at a time, at least 1."""


DEFAULT_EFFORT = Effort()


def methods_named(names: str) -> tuple[Method, ...]:
    """Return the methods of a list such as ``cam,grad-cam``, in its order; ``all`` are all of them.

    Raises:
        UserError: One of them is unknown.
    """
    if names == "all":
        return METHODS
    known: dict[str, Method] = {method: method for method in METHODS}
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known:
            raise UserError(f"unknown method '{name}'{did_you_mean(name, (*known, 'all'))}")
    return tuple(dict.fromkeys(known[name] for name in chosen))
