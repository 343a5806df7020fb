"""How a spec becomes tensors."""

from effnet.nn.factory import build_model as build_model
from effnet.nn.model import EfficientNet as EfficientNet
