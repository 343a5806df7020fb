"""From a name, a file or a spec to a network with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from effnet.arch.external import TIMM, AnySpec, ExternalSpec
from effnet.arch.io import load_spec
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.kernels import Kernels
from effnet.nn.model import Checkpointing, EfficientNet
from effnet.nn.network import Network
from effnet.nn.timm_network import TimmNetwork
from effnet.weights import LoadedWeights, fit_state, load_weights
from effnet.weights.timm_library import timm_spec


def find_spec(name_or_path: str) -> AnySpec:
    """Return a network of the family, of a JSON file, or of timm.

    Args:
        name_or_path: As for `effnet.arch.load_spec`, or ``timm:`` and timm's name.

    Raises:
        UserError: There is no such network or file, or timm is not installed.
    """
    return timm_spec(name_or_path) if name_or_path.startswith(TIMM) else load_spec(name_or_path)


def build_model(
    network: AnySpec | str | Path,
    *,
    weights: LoadedWeights | str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    class_names: Sequence[str] | None = None,
    gradient_checkpointing: Checkpointing = False,
    kernels: Kernels = "plain",
    classifier_bias: float = 0.0,
) -> Network:
    """Build a network, and load weights into it if there are any.

    Args:
        network: A spec, a name of the family such as ``v2-s``, the path of a spec in JSON, or ``timm:`` and
            timm's name.
        weights: A file, a hub name, or weights already loaded. They decide about padding and batch norm,
            unless ``network`` is a spec and they are already loaded.
        num_classes: Classes of the result. None: as many as the weights have, else as the network has.
        in_channels: Channels of the images; the stem's weights are adapted.
        class_names: Names of the classes; loaded rows of the classifier are kept for names it shares with
            the weights.
        gradient_checkpointing: Which blocks to recompute in the backward pass to save memory.
        kernels: What `effnet.kernels` computes in training mode, as for `EfficientNet`.
        classifier_bias: Where the biases of classes begin that the weights do not know.

    Returns:
        The network in training mode, in fp32 on the CPU. Without weights, initialised as released from
        PyTorch's global generator. With weights, a classifier for classes that they do not know begins at 0,
        but for ``classifier_bias``.

    Raises:
        UserError: There is no such network or file, or the weights belong to another network.
    """
    spec = network if isinstance(network, NetworkSpec | ExternalSpec) else find_spec(str(network))
    loaded = weights if weights is None or isinstance(weights, LoadedWeights) else None
    if weights is not None and loaded is None:
        loaded = load_weights(str(weights), spec)
        spec = loaded.spec
    if class_names is not None and num_classes is None:
        num_classes = len(class_names)
    spec = replace(
        spec, num_classes=num_classes or spec.num_classes, in_channels=in_channels or spec.in_channels
    )
    model = _fresh(spec, gradient_checkpointing=gradient_checkpointing, kernels=kernels)
    nn.init.constant_(model.classifier.bias, classifier_bias)
    if loaded is not None:
        # The released initialisation is large for few classes; a new head on trained features begins neutral.
        nn.init.zeros_(model.classifier.weight)
        state = fit_state(
            loaded.state,
            model.state_dict(),
            class_names=loaded.class_names,
            new_class_names=class_names,
        )
        model.load_state_dict(state)
    return model


def _fresh(spec: AnySpec, *, gradient_checkpointing: Checkpointing, kernels: Kernels) -> Network:
    if isinstance(spec, NetworkSpec):
        return EfficientNet(spec, gradient_checkpointing=gradient_checkpointing, kernels=kernels)
    if gradient_checkpointing:
        raise UserError(
            f"model.gradient_checkpointing is for EfficientNets, not for {spec.name}; set a smaller "
            "train.micro_batch_size instead"
        )
    if kernels != "plain":
        raise UserError(
            f"train.kernels '{kernels}' is for EfficientNets, not for {spec.name}; set train.kernels=plain"
        )
    return TimmNetwork(spec)
