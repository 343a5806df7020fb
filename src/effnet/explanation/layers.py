"""The feature maps of a layer, and the logits that the rest of the network makes of them.

Dimension key: N images, C channels, S side of the images, H W pixels of the feature maps, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from effnet.errors import UserError, did_you_mean
from effnet.nn import EfficientNet, Network
from effnet.nn.timm_network import TimmNetwork

HEAD = "head"
"""The feature that is pooled for the classifier; every network has it."""


class Trace(NamedTuple):
    """A layer's feature maps, where differentiation begins, and the logits that came of them."""

    features: Float[Tensor, "N C H W"]
    logits: Float[Tensor, "N K"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, in float32, with gradients allowed; behind it all is as before."""
    modes = {module: module.training for module in model.modules()}
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def layer_names(model: Network) -> tuple[str, ...]:
    """Return the layers of a network in their order; the last one is ``head``.

    They are those of `effnet.nn.EfficientNet.features`. Of a network of timm they are timm's modules.
    """
    if isinstance(model, EfficientNet):
        return ("stem", *(f"stage{number}" for number in range(1, len(model.stages) + 1)), HEAD)
    assert isinstance(model, TimmNetwork)
    return (*(name for name, _ in model.body.named_modules() if name and name != HEAD), HEAD)


def trace(model: Network, pixels: Float[Tensor, "N C S S"], layer: str = HEAD) -> Trace:
    """Run a network, and keep the feature maps of one layer.

    Args:
        model: In evaluation mode; its parameters get no gradients.
        pixels: Normalised.
        layer: One of `layer_names`.

    Raises:
        UserError: There is no such layer, or what leaves it are no maps.
    """
    names = layer_names(model)
    if layer not in names:
        shown = names if isinstance(model, EfficientNet) else _nearest(layer, names)
        raise UserError(f"{model.spec.name} has no layer '{layer}'{did_you_mean(layer, shown)}")
    if isinstance(model, TimmNetwork) and layer == HEAD:
        return _trace_timm_head(model, pixels)
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Any) -> Tensor:  # noqa: ANN401
        kept.append(_as_leaf(output, model, layer))
        return kept[-1]

    hook = _module(model, layer).register_forward_hook(keep)
    try:
        logits = model(pixels)
    finally:
        hook.remove()
    if len(kept) != 1:
        raise UserError(
            f"layer '{layer}' of {model.spec.name} ran {len(kept)} times; give one that runs once"
        )
    return Trace(kept[0], logits)


def _module(model: Network, layer: str) -> nn.Module:
    if isinstance(model, TimmNetwork):
        return model.body.get_submodule(layer)
    assert isinstance(model, EfficientNet)
    if not layer.startswith("stage"):
        return model.get_submodule(layer)
    # The network runs the blocks of a stage itself.
    blocks = list(model.stages[int(layer.removeprefix("stage")) - 1].children())
    return blocks[-1]


def _trace_timm_head(model: TimmNetwork, pixels: Tensor) -> Trace:
    body: Any = model.body
    features = _as_leaf(body.forward_features(pixels), model, HEAD)
    if features.shape[1] != body.num_features:
        raise UserError(_no_maps(model, HEAD))
    return Trace(features, model.classifier(model.dropout(body.forward_head(features))))


def _as_leaf(output: Any, model: Network, layer: str) -> Tensor:  # noqa: ANN401
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise UserError(_no_maps(model, layer))
    return output.detach().requires_grad_()


def _no_maps(model: Network, layer: str) -> str:
    return (
        f"what leaves layer '{layer}' of {model.spec.name} are no maps of channels, height and width; give "
        "another layer, or the method occlusion or integrated-gradients"
    )


def _nearest(layer: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the outermost modules and those whose names begin alike: timm's networks have hundreds."""
    begun = layer.split(".", maxsplit=1)[0]
    return tuple(name for name in names if "." not in name or name.startswith(f"{begun}."))[:20]
