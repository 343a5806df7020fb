"""Layers of a training step that pass over memory as seldom as they can: Triton, Numba, plain PyTorch."""

from typing import Literal, TypeAlias

from effnet.kernels.depthwise import depthwise_conv2d as depthwise_conv2d
from effnet.kernels.norm import batch_norm_act as batch_norm_act
from effnet.kernels.norm_gate import batch_norm_act_squeeze_excite as batch_norm_act_squeeze_excite

Kernels: TypeAlias = Literal["plain", "triton-norm", "triton", "numba"]
"""Which of them a network uses: none; Triton's on batch norm and what follows it, or all of Triton's; or
those that Numba compiles for the processor."""
