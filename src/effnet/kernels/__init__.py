"""Layers of a training step that pass over memory as seldom as they can, in Triton and in plain PyTorch."""

from effnet.kernels.norm import batch_norm_act as batch_norm_act
from effnet.kernels.norm_gate import batch_norm_act_squeeze_excite as batch_norm_act_squeeze_excite
