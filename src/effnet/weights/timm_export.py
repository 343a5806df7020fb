"""Write weights so that timm or torchvision load them as their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from effnet.arch.external import AnySpec, ExternalSpec
from effnet.arch.family import network
from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.files import write_json
from effnet.weights.convert import export_state
from effnet.weights.hub import CONFIG_FILE
from effnet.weights.networks import TORCHVISION, published_name, with_conventions
from effnet.weights.storage import write_tensors
from effnet.weights.timm_config import external_config, to_timm_config
from effnet.weights.timm_library import external_name


def export_timm(
    folder: Path,
    state: Mapping[str, Tensor],
    spec: AnySpec,
    *,
    class_names: Sequence[str] | None,
    preprocessing: Preprocessing,
) -> None:
    """Write a folder for ``timm.create_model('local-dir:FOLDER', pretrained=True)``, or for the hub.

    Args:
        folder: Made if it does not exist; gets ``model.safetensors`` and ``config.json``.
        state: State dict of the network.
        spec: The network.
        class_names: In the order of the logits, where they are known.
        preprocessing: timm resizes with an antialiased filter whatever ``antialias`` says.

    Raises:
        UserError: timm has no such network.
        OSError: The disk is full or cannot be written.
    """
    if isinstance(spec, ExternalSpec):
        config = external_config(spec, class_names, preprocessing)
        tensors = {external_name(name, spec): tensor for name, tensor in state.items()}
    else:
        config = to_timm_config(spec, class_names, preprocessing)
        tensors = export_state(state, spec, "timm")
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors, {})
    write_json(folder / CONFIG_FILE, config)


def export_torchvision(path: Path, state: Mapping[str, Tensor], spec: AnySpec) -> str:
    """Write a safetensors file with the state dict of a torchvision model.

    Args:
        path: Where the file will be.
        state: State dict of `effnet.nn.EfficientNet`.
        spec: The network.

    Returns:
        The Python line that builds the model it belongs to.

    Raises:
        UserError: torchvision has no such network, or it computes something else with these weights.
        OSError: The disk is full or cannot be written.
    """
    name = published_name(spec) if isinstance(spec, NetworkSpec) else None
    if not isinstance(spec, NetworkSpec) or name not in TORCHVISION:
        raise UserError(
            f"torchvision has no network with the layers of {spec.name}; it has {', '.join(TORCHVISION)}"
        )
    theirs = with_conventions(spec, "torchvision")
    for key in ("padding", "norm_epsilon"):
        ours, its = getattr(spec, key), getattr(theirs, key)
        if ours != its:
            raise UserError(
                f"torchvision's {name} has {key} {its}, these weights were trained with {ours}: its logits "
                f"would differ; train with {key} {its}, or export to timm"
            )
    activation = network(name).activation
    if (spec.activation, spec.in_channels) != (activation, 3):
        raise UserError(
            f"torchvision's {name} has the activation {activation} and 3 input channels, "
            f"got {spec.activation} and {spec.in_channels}"
        )
    write_tensors(path, export_state(state, spec, "torchvision"), {})
    return f"torchvision.models.{TORCHVISION[name]}(num_classes={spec.num_classes})"
