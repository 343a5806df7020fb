"""The family of class activation maps: how each weighs the feature maps of a layer, as its paper says.

Every function returns one map an image, at the size of the features and with signs. ``gradients`` are those
of the class's logit. Dimension key: N images, C channels, H W pixels of the feature maps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

_Maps: TypeAlias = Float[Tensor, "N C H W"]
_Map: TypeAlias = Float[Tensor, "N H W"]


def cam(features: _Maps, weights: Float[Tensor, "N C"]) -> _Map:
    """Weigh each channel by the classifier's weight for the class (1512.04150, equation 2).

    The mean of the map is the class's logit without its bias: where a network ends in global average pooling
    and a linear classifier, the map is how the logit is spread over the image, exactly.
    """
    return torch.einsum("nchw,nc->nhw", features, weights)


def grad_cam(features: _Maps, gradients: _Maps) -> _Map:
    """Weigh each channel by the mean of its gradients (1610.02391, equations 1 and 2)."""
    return torch.einsum("nchw,nc->nhw", features, gradients.mean((2, 3)))


def grad_cam_plus_plus(features: _Maps, gradients: _Maps) -> _Map:
    """Weigh each channel by a weighted sum of its positive gradients (1710.11063, equations 11 and 19).

    The score is the exponential of the logit, whose higher derivatives are powers of the gradient; the
    exponential itself is the same factor everywhere and is left out.
    """
    squared = gradients.square()
    denominator = 2 * squared + features.sum((2, 3), keepdim=True) * squared * gradients
    alphas = torch.where(denominator != 0, squared / torch.where(denominator != 0, denominator, 1.0), 0.0)
    weights = (alphas * gradients.relu()).sum((2, 3))
    return torch.einsum("nchw,nc->nhw", features, weights)


def layer_cam(features: _Maps, gradients: _Maps) -> _Map:
    """Weigh each value by its own positive gradient (LayerCAM, IEEE TIP 2021, equations 6 and 7)."""
    return (features * gradients.relu()).sum(1)


def eigen_cam(features: _Maps) -> _Map:
    """Project each pixel's features on their first principal direction (2008.00299, equation 4).

    The features are not centred, as in the paper. The direction's sign is free; here the sum of the map is
    positive. It does not depend on a class.
    """
    pixels = features.flatten(2).mT
    _, _, directions = torch.linalg.svd(pixels, full_matrices=False)
    projected = (pixels @ directions[:, 0, :, None])[..., 0].unflatten(1, features.shape[2:])
    return projected * torch.where(projected.sum((1, 2), keepdim=True) < 0, -1.0, 1.0)


BY_GRADIENTS: dict[str, Callable[[_Maps, _Maps], _Map]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
    "layer-cam": layer_cam,
}
"""Those that need the gradients of a class's logit."""
