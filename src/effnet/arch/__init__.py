"""What a network is: pure data, from which the model, its cost and its schedules are derived."""

from effnet.arch.accounting import LayerCost, NetworkCost, network_cost
from effnet.arch.external import TIMM, AnySpec, ExternalSpec
from effnet.arch.family import fuse_stages, limit_stride, names, network, released_preprocessing
from effnet.arch.io import from_dict, load_spec, spec_from_dict, spec_from_json, spec_to_json, to_dict
from effnet.arch.preprocessing import IMAGENET_MEAN, IMAGENET_STD, CropMode, Interpolation, Preprocessing
from effnet.arch.scaling import round_channels, round_repeats, scale
from effnet.arch.spec import Activation, BlockSpec, NetworkSpec, Operation, Padding, StageSpec

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "TIMM",
    "Activation",
    "AnySpec",
    "BlockSpec",
    "CropMode",
    "ExternalSpec",
    "Interpolation",
    "LayerCost",
    "NetworkCost",
    "NetworkSpec",
    "Operation",
    "Padding",
    "Preprocessing",
    "StageSpec",
    "from_dict",
    "fuse_stages",
    "limit_stride",
    "load_spec",
    "names",
    "network",
    "network_cost",
    "released_preprocessing",
    "round_channels",
    "round_repeats",
    "scale",
    "spec_from_dict",
    "spec_from_json",
    "spec_to_json",
    "to_dict",
]
