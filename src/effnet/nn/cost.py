"""Multiply-adds of any network: in closed form where its layers are known, else counted."""

from __future__ import annotations

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from effnet.arch.accounting import network_cost
from effnet.arch.external import AnySpec, ExternalSpec
from effnet.arch.spec import NetworkSpec
from effnet.nn.timm_network import TimmNetwork


def forward_macs(spec: AnySpec, image_size: int) -> int:
    """Return the multiply-adds of one image: of convolutions, linear layers and attention.

    Args:
        spec: The network.
        image_size: Side of the input in pixels.

    Raises:
        UserError: The network is of timm, and timm is not installed.
    """
    if isinstance(spec, NetworkSpec):
        return network_cost(spec, image_size).macs
    return _counted_macs(spec, image_size)


@cache
def _counted_macs(spec: ExternalSpec, image_size: int) -> int:
    with torch.device("meta"):
        network = TimmNetwork(spec).eval()
        images = torch.zeros(1, spec.in_channels, image_size, image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    return counter.get_total_flops() // 2
