"""What a network is: pure data, from which the model, its cost and its schedules are derived."""

from effnet.arch.accounting import LayerCost, NetworkCost, network_cost
from effnet.arch.compound import Coefficients, Compound, published_coefficients, scale_by
from effnet.arch.external import TIMM, AnySpec, ExternalSpec
from effnet.arch.family import fuse_stages, limit_stride, names, network, released_preprocessing
from effnet.arch.io import from_dict, load_spec, spec_from_dict, spec_from_json, spec_to_json, to_dict
from effnet.arch.non_uniform import NonUniformRule, scale_non_uniform, scale_to_v2_size
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
    "Coefficients",
    "Compound",
    "CropMode",
    "ExternalSpec",
    "Interpolation",
    "LayerCost",
    "NetworkCost",
    "NetworkSpec",
    "NonUniformRule",
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
    "published_coefficients",
    "released_preprocessing",
    "round_channels",
    "round_repeats",
    "scale",
    "scale_by",
    "scale_non_uniform",
    "scale_to_v2_size",
    "spec_from_dict",
    "spec_from_json",
    "spec_to_json",
    "to_dict",
]
