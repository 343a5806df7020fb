"""From pixels and classes to heat maps, by any method.

Dimension key: N images, C channels, S side of the images, H W pixels of a map.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from effnet.errors import UserError
from effnet.explanation.cams import BY_GRADIENTS, cam, eigen_cam
from effnet.explanation.layers import HEAD, Trace, evaluating, trace
from effnet.explanation.methods import DEFAULT_EFFORT, LAYER_METHODS, Effort, Method
from effnet.explanation.perturbing import BY_CHANGED_IMAGES
from effnet.nn import EfficientNet, Network

_GRAINS = 24
"""Squares along a side of an image over which integrated gradients are averaged in a heat map."""
_BRIGHT = 0.99
"""Share of an image's pixels that have less of integrated gradients than counts as all of it."""


def heat_maps(
    model: Network,
    pixels: Float[Tensor, "N C S S"],
    classes: Int64[Tensor, " N"],
    method: Method = "grad-cam",
    *,
    layer: str = HEAD,
    effort: Effort = DEFAULT_EFFORT,
) -> Float[Tensor, "N S S"]:
    """Return what in each image speaks for a class, from 0 (nothing) to 1 (the most in this image).

    ``cam`` needs one forward pass and no gradients. The network's mode, gradients and statistics stay as they
    were, and an image's map does not depend on the others of its batch.

    Args:
        model: The network.
        pixels: Normalised, on the network's device.
        classes: Index of the class to explain, of each image.
        method: How.
        layer: Whose feature maps are weighed, of `effnet.explanation.layers.layer_names`; for methods that do
            not use a layer it must be left at ``head``.
        effort: Of ``occlusion`` and ``integrated-gradients``.

    Returns:
        float32, at the size of the images; all 0 where nothing speaks for the class.

    Raises:
        UserError: The network has no such layer, the method does not go with it, or a package is missing.
    """
    signed = signed_maps(model, pixels, classes, method, layer=layer, effort=effort)
    return heat_of(signed, method, pixels.shape[-1])


def heat_of(signed: Float[Tensor, "N H W"], method: Method, side: int) -> Float[Tensor, "N S S"]:
    """Return what is positive in maps of a method, enlarged to images of ``side`` px, with 1 as the most.

    Args:
        signed: Of `signed_maps`.
        method: That they are of. The grain of integrated gradients is smoothed, and 1 is what all but a
            hundredth of the pixels are below.
        side: Of the result, in pixels.
    """
    heat = (_grouped(signed) if method == "integrated-gradients" else signed).relu()
    if heat.shape[-1] != side:
        heat = functional.interpolate(heat[:, None], size=(side, side), mode="bilinear", align_corners=False)[
            :, 0
        ]
    most = heat.amax((1, 2), keepdim=True)
    if method == "integrated-gradients":
        # A few pixels have many times what all others have, which would be invisible beside them.
        usual = heat.flatten(1).quantile(_BRIGHT, dim=1)[:, None, None]
        most = torch.where(usual > 0, usual, most)
    return torch.where(most > 0, heat / torch.where(most > 0, most, 1.0), 0.0).clamp_(max=1.0)


def cells_of(method: Method, width: int, effort: Effort) -> int:
    """Return how many places along a side the maps of a method can tell apart.

    Args:
        method: That they are of.
        width: Of a map of `signed_maps`.
        effort: That was made.
    """
    if method == "occlusion":
        return max(round(1 / effort.stride_share), 1)
    return min(_GRAINS, width) if method == "integrated-gradients" else width


def signed_maps(
    model: Network,
    pixels: Float[Tensor, "N C S S"],
    classes: Int64[Tensor, " N"],
    method: Method = "grad-cam",
    *,
    layer: str = HEAD,
    effort: Effort = DEFAULT_EFFORT,
) -> Float[Tensor, "N H W"]:
    """Return the maps as the method gives them: in units of its own, with signs, not enlarged.

    Arguments and errors are those of `heat_maps`.
    """
    if method not in LAYER_METHODS and layer != HEAD:
        raise UserError(f"{method} explains the whole network, not a layer; leave the layer '{layer}' out")
    with evaluating(model):
        # What was made in inference mode cannot take part in differentiation.
        pixels = (pixels.clone() if pixels.is_inference() else pixels.detach()).float()
        classes = classes.clone() if classes.is_inference() else classes
        if method in BY_CHANGED_IMAGES:
            attributed = BY_CHANGED_IMAGES[method](model, pixels, classes, effort)
            # All channels of an occluded pixel have the same value, which is that of the pixel.
            found = attributed[:, 0] if method == "occlusion" else attributed.sum(1)
        elif method == "cam":
            found = _class_activation(model, pixels, classes, layer)
        elif method == "eigen-cam":
            with torch.no_grad():
                found = eigen_cam(trace(model, pixels, layer).features)
        else:
            traced = trace(model, pixels, layer)
            own = traced.logits.gather(1, classes[:, None]).sum()
            (gradients,) = torch.autograd.grad(own, traced.features)
            found = BY_GRADIENTS[method](traced.features, gradients)
    return found.detach().float()


def _grouped(maps: Float[Tensor, "N S S"]) -> Float[Tensor, "N S S"]:
    """Average over small squares: what single pixels are given is grain that no eye can follow."""
    reach = maps.shape[-1] // (2 * _GRAINS)
    side = 2 * reach + 1
    return functional.avg_pool2d(maps[:, None], side, 1, padding=reach, count_include_pad=False)[:, 0]


@torch.no_grad()
def _class_activation(model: Network, pixels: Tensor, classes: Tensor, layer: str) -> Tensor:
    if layer != HEAD:
        raise UserError(
            f"cam weighs '{HEAD}', which the classifier sees, not '{layer}'; use grad-cam or layer-cam there"
        )
    traced = trace(model, pixels)
    if not isinstance(model, EfficientNet) and not _pools_and_classifies(model, traced):
        raise UserError(
            f"between the last feature maps of {model.spec.name} and its classifier is more than their mean, "
            "so that cam is not defined; use grad-cam"
        )
    return cam(traced.features, model.classifier.weight[classes])


def _pools_and_classifies(model: Network, traced: Trace) -> bool:
    pooled = traced.features.mean((2, 3))
    if pooled.shape[1] != model.classifier.in_features:
        return False
    return torch.allclose(model.classifier(pooled), traced.logits, rtol=1e-3, atol=1e-3)
