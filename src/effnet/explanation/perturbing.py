"""Heat maps by changed images, whatever the layers of a network are: captum's occlusion and gradients.

The baseline that replaces what is taken away is 0 behind normalisation: the mean colour of the data.
Dimension key: N images, C channels, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from jaxtyping import Float, Int64
from torch import Tensor

from effnet.errors import UserError
from effnet.explanation.methods import Effort
from effnet.nn import Network

MapFunction = Callable[
    [Network, Float[Tensor, "N C S S"], Int64[Tensor, " N"], Effort], Float[Tensor, "N C S S"]
]


def occlusion(
    model: Network, pixels: Float[Tensor, "N C S S"], classes: Int64[Tensor, " N"], effort: Effort
) -> Float[Tensor, "N C S S"]:
    """Return by how much the class's logit falls where a square is covered (1311.2901, section 4.2).

    Each pixel has the mean of all squares that cover it; all channels of a pixel are equal.

    Raises:
        UserError: captum is not installed.
    """
    channels, side = pixels.shape[1], pixels.shape[-1]
    window = min(max(round(effort.window_share * side), 1), side)
    stride = min(max(round(effort.stride_share * side), 1), window)
    return _captum().Occlusion(model).attribute(
        pixels,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
        baselines=0,
        target=classes,
        perturbations_per_eval=max(effort.batch_size // len(pixels), 1),
    )  # fmt: skip


def integrated_gradients(
    model: Network, pixels: Float[Tensor, "N C S S"], classes: Int64[Tensor, " N"], effort: Effort
) -> Float[Tensor, "N C S S"]:
    """Return each value's share of the logit's difference to that of the baseline (1703.01365, equation 1).

    The sum over an image is that difference, but for the error of the sum over ``effort.steps``.

    Raises:
        UserError: captum is not installed.
    """
    return _captum().IntegratedGradients(model, multiply_by_inputs=True).attribute(
        pixels,
        baselines=0,
        target=classes,
        n_steps=effort.steps,
        internal_batch_size=max(effort.batch_size, len(pixels)),
    )  # fmt: skip


def _captum() -> ModuleType:
    try:
        from captum import attr  # noqa: PLC0415 - an extra, and a second to import
    except ImportError as error:
        raise UserError(
            f"occlusion and integrated-gradients need captum: pip install 'effnet[explain]' ({error}); cam, "
            "grad-cam, grad-cam++, layer-cam and eigen-cam do without"
        ) from None
    module: ModuleType = attr
    return module


BY_CHANGED_IMAGES: dict[str, MapFunction] = {
    "occlusion": occlusion,
    "integrated-gradients": integrated_gradients,
}
