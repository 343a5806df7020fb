"""Weight initialisation, as released."""

from __future__ import annotations

import math

from torch import nn

from effnet.nn.blocks import Block


def initialize(model: nn.Module) -> None:
    """Draw all weights anew, in place, from PyTorch's global generator.

    =================  ==========================================================================
    convolution        normal, std sqrt(2 / (k * k * out_channels)); bias 0
    depthwise          normal, std sqrt(2 / (k * k)): TensorFlow's kernel has one output a channel
    batch norm         scale 1, shift 0, also in the last one of a residual branch
    linear             uniform in +-1 / sqrt(out_features); bias 0
    =================  ==========================================================================

    Only the last batch norm of a bottleneck has the scale 0 where its branch is added, as ResNets are trained
    (1706.02677 section 5.1, and timm).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            height, width = module.kernel_size
            fan_out = height * width * (module.out_channels // module.groups)
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)
    for block in model.modules():
        if isinstance(block, Block) and block.is_bottleneck and block.drop_path is not None:
            nn.init.zeros_(block.get_submodule("project.norm").weight)  # type: ignore[arg-type]
