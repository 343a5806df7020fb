"""Weights with what is needed to use them: the network, its classes and its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from effnet.arch.external import AnySpec, ExternalSpec
from effnet.arch.io import from_dict, spec_from_dict, to_dict
from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import NetworkSpec, Output
from effnet.errors import UserError
from effnet.weights.convert import State, ends, import_state
from effnet.weights.storage import read_metadata, read_tensors, write_tensors


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """Weights under our names, and all that came with them."""

    state: State
    """Complete state dict of the network ``spec``, on the CPU."""
    spec: AnySpec
    """With the padding, batch norm, input channels and classes of the weights."""
    class_names: tuple[str, ...] | None
    """In the order of the logits; None: the source does not tell."""
    preprocessing: Preprocessing | None
    """How the weights were evaluated; None: the source does not tell."""
    origin: str
    """Where they came from, for people."""
    output: Output = "softmax"
    """How logits become probabilities, by the loss that the weights were trained with."""


def save_weights(
    path: Path,
    state: Mapping[str, Tensor],
    spec: AnySpec,
    *,
    class_names: Sequence[str] | None,
    preprocessing: Preprocessing | None,
    provenance: str,
    output: Output = "softmax",
) -> None:
    """Write weights as one safetensors file that `read_weights` can use without further information.

    Args:
        path: Where the file will be; a file of that name is replaced, at once and as a whole.
        state: State dict of the network, on any device.
        spec: The network.
        class_names: In the order of the logits, where they are known.
        preprocessing: How images must be prepared, where it is known.
        provenance: Where the weights come from, for people.
        output: How logits become probabilities.

    Raises:
        UserError: There are more or fewer class names than classes.
        OSError: The disk is full or cannot be written; a file that was there before is unharmed.
    """
    if class_names is not None and len(class_names) != spec.num_classes:
        raise UserError(f"{spec.name} has {spec.num_classes} classes, got {len(class_names)} class names")
    metadata: dict[str, Any] = {
        "spec": to_dict(spec),
        "class_names": None if class_names is None else list(class_names),
        "preprocessing": None if preprocessing is None else to_dict(preprocessing),
        "provenance": provenance,
    }
    if output != "softmax":  # Files of networks with a softmax stay what they were.
        metadata["output"] = output
    write_tensors(path, state, metadata)


def read_weights(path: Path) -> LoadedWeights | None:
    """Read what `save_weights` wrote.

    Returns:
        The weights; None when the file is a safetensors file of others.

    Raises:
        UserError: The file does not hold what it says.
        OSError: The file is not there, or it is not a whole safetensors file.
    """
    metadata = read_metadata(path)
    if "spec" not in metadata:
        return None
    spec = spec_from_dict(metadata["spec"], str(path))
    tensors = read_tensors(path)
    state = tensors if isinstance(spec, ExternalSpec) else import_state(tensors, spec)
    if isinstance(spec, NetworkSpec) and ends(state) != (spec.in_channels, spec.num_classes):
        raise UserError(
            f"{path} says {spec.in_channels} channels and {spec.num_classes} classes; it holds {ends(state)}"
        )
    names, preprocessing = metadata.get("class_names"), metadata.get("preprocessing")
    provenance = metadata.get("provenance")
    output = metadata.get("output", "softmax")
    if output not in get_args(Output):
        raise UserError(f"{path} has the output '{output}'; allowed: {', '.join(get_args(Output))}")
    return LoadedWeights(
        state=state,
        spec=spec,
        class_names=None if names is None else tuple(names),
        preprocessing=None if preprocessing is None else from_dict(Preprocessing, preprocessing, str(path)),
        origin=f"{path} ({provenance})" if provenance else str(path),
        output=output,
    )
