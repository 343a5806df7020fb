"""How a spec becomes tensors."""

from effnet.nn.cost import forward_macs as forward_macs
from effnet.nn.factory import build_model as build_model
from effnet.nn.factory import find_spec as find_spec
from effnet.nn.model import EfficientNet as EfficientNet
from effnet.nn.network import Network as Network
