"""Statistics of batch norm for one network of a supernet: another width or depth has other ones.

Dimension key: N images, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from effnet.nn import EfficientNet


@torch.no_grad()
def calibrate(network: EfficientNet, batches: Iterable[Float[Tensor, "N C H W"]]) -> None:
    """Take the statistics anew: each layer's are the mean over some batches of training images.

    Args:
        network: Left in evaluation mode; nothing but its statistics changes.
        batches: Normalised images, as in evaluation. A few hundred images are enough for a ranking.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for the mean over all batches.
        norm.train()
    for images in batches:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
