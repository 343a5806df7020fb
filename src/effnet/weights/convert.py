"""Carry tensors between our state dict and those of other libraries."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from effnet.arch import family
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.weights.names import BATCHES, SCHEMES, Scheme, axes, scheme_names, state_shapes

State = dict[str, Tensor]
"""A state dict of `effnet.nn.EfficientNet`: float32 under our names."""

_STEMS: dict[str, Scheme] = {
    "stem.conv.weight": "effnet",
    "conv_stem.weight": "timm",
    "conv1.weight": "timm",  # of a ResNet, and torchvision's names are the same
    "features.0.0.weight": "torchvision",
    "_conv_stem.weight": "lukemelas",
    "stem_conv/kernel": "keras",
    "stem_conv.weight": "keras-torch",
    "stem/conv2d/kernel": "tf",
}


@dataclass(frozen=True, kw_only=True)
class _Difference:
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = (
            (self.missing, "tensors are missing"),
            (self.unexpected, "are unexpected"),
            (self.misshapen, "have another shape"),
        )
        return ", ".join(f"{len(names)} {what} ({_first(names)})" for names, what in parts if names)


def detect_scheme(names: Collection[str]) -> Scheme:
    """Tell by the name of the stem's kernel whose names these are.

    Raises:
        UserError: No scheme has these names.
    """
    for stem, scheme in _STEMS.items():
        if stem in names:
            return scheme
    raise UserError(
        f"these are not the weights of a network of the family in a known naming ({', '.join(SCHEMES)}): "
        f"the names are {_first(list(names))}"
    )


def import_state(tensors: Mapping[str, Tensor], spec: NetworkSpec) -> State:
    """Bring tensors of any known naming and layout to our names, our layout and float32.

    Args:
        tensors: Under the names of one of the schemes of `scheme_names`.
        spec: The network. The number of classes and of input channels may be others; `fit_state` brings
            them to the network's.

    Returns:
        Our complete state dict; ``num_batches_tracked`` is 0 where the source has none.

    Raises:
        UserError: The tensors are not those of this network.
    """
    scheme = detect_scheme(tensors)
    actual = _with_ends(spec, tensors, scheme)
    difference = _difference(actual, tensors, scheme)
    if difference:
        fitting = _fitting(tensors, scheme)
        raise UserError(
            f"these are not the weights of {spec.name}: {difference}"
            + (f"; they fit {fitting}" if fitting else "")
        )
    names = scheme_names(actual, scheme)
    state: State = {}
    for ours, shape in state_shapes(actual).items():
        is_counter = ours.endswith(BATCHES)
        if is_counter and names.get(ours) not in tensors:
            state[ours] = torch.zeros((), dtype=torch.int64)
            continue
        tensor = tensors[names[ours]]
        order = _inverse(axes(ours, len(shape), scheme))
        dtype = torch.int64 if is_counter else torch.float32
        state[ours] = tensor.permute(order).to(dtype).contiguous()
    return state


def export_state(state: Mapping[str, Tensor], spec: NetworkSpec, scheme: Scheme) -> dict[str, Tensor]:
    """Bring our state dict to the names and layout of a scheme.

    Raises:
        UserError: The scheme has no names for a layer of this network.
    """
    return {
        theirs: state[ours].permute(axes(ours, state[ours].ndim, scheme)).contiguous()
        for ours, theirs in scheme_names(spec, scheme).items()
    }


def ends(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the number of input channels and of classes of our state dict."""
    return state["stem.conv.weight"].shape[1], state["classifier.weight"].shape[0]


def _with_ends(spec: NetworkSpec, tensors: Mapping[str, Tensor], scheme: Scheme) -> NetworkSpec:
    """Return the network with the input channels and classes of the tensors, so that only the rest counts."""
    names = scheme_names(spec, scheme)
    stem, bias = tensors.get(names["stem.conv.weight"]), tensors.get(names["classifier.bias"])
    if stem is not None and stem.ndim == 4:
        spec = replace(spec, in_channels=stem.shape[axes("stem.conv.weight", 4, scheme).index(1)])
    if bias is not None and bias.ndim == 1:
        spec = replace(spec, num_classes=bias.shape[0])
    return spec


def _difference(spec: NetworkSpec, tensors: Mapping[str, Tensor], scheme: Scheme) -> _Difference:
    names = scheme_names(spec, scheme)
    needed = {
        names[ours]: [shape[axis] for axis in axes(ours, len(shape), scheme)]
        for ours, shape in state_shapes(spec).items()
        if ours in names
    }
    return _Difference(
        missing=[name for name in needed if name not in tensors and not name.endswith(BATCHES)],
        unexpected=[name for name in tensors if name not in needed],
        misshapen=[
            f"{name} is {list(tensors[name].shape)} and must be {shape}"
            for name, shape in needed.items()
            if name in tensors and list(tensors[name].shape) != shape
        ],
    )


def _fitting(tensors: Mapping[str, Tensor], scheme: Scheme) -> str | None:
    for name in family.names():
        try:
            spec = _with_ends(family.network(name), tensors, scheme)
            if not _difference(spec, tensors, scheme):
                return name
        except UserError:  # the scheme cannot hold this network
            continue
    return None


def _first(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))
