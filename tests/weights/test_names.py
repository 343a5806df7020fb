from dataclasses import replace

import pytest
import torch

from effnet.arch import family
from effnet.errors import UserError
from effnet.nn import build_model
from effnet.weights.names import BATCHES, SCHEMES, TORCH_SCHEMES, axes, scheme_names, state_shapes

EVERY_NETWORK = [*family.names(), "v1-b4.fused1-3", "v2-s.fused4-5"]


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_names_and_shapes_are_those_of_the_built_network(name):
    spec = family.network(name)
    with torch.device("meta"):
        built = build_model(spec).state_dict()
    assert state_shapes(spec) == {key: tuple(tensor.shape) for key, tensor in built.items()}


def test_in_channels_and_classes_change_the_ends_alone(tiny):
    with torch.device("meta"):
        built = build_model(replace(tiny, in_channels=1, num_classes=3)).state_dict()
    shapes = state_shapes(replace(tiny, in_channels=1, num_classes=3))
    assert shapes == {key: tuple(tensor.shape) for key, tensor in built.items()}
    assert {key for key, shape in state_shapes(tiny).items() if shapes[key] != shape} == {
        "stem.conv.weight",
        "classifier.weight",
        "classifier.bias",
    }


# What no other library has under these names: a library's names, by the kind of the first stage.
NAMED = {
    "separable": {"effnet", "timm"},
    "bottleneck": {"effnet", "timm", "torchvision"},
    "fused_mbconv": set(SCHEMES) - {"lukemelas"},
    "mbconv": set(SCHEMES),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_names_are_a_bijection(name, scheme):
    spec = family.network(name)
    if scheme not in NAMED[spec.stages[0].operation]:
        with pytest.raises(UserError, match=f"{scheme} has no name for"):
            scheme_names(spec, scheme)
        return
    names = scheme_names(spec, scheme)
    assert len(set(names.values())) == len(names)
    missing = set(state_shapes(spec)) - set(names)
    assert all(key.endswith(BATCHES) for key in missing)
    assert bool(missing) == (scheme in {"keras", "keras-torch", "tf"})


# Spelled out from the libraries' own state dicts and checkpoints: the first block of V1 has no expansion,
# so that TensorFlow's first convolution there is the projection.
GOLDEN = [
    ("v1-b0", "timm", "stages.0.0.project.norm.weight", "blocks.0.0.bn2.weight"),
    ("v1-b0", "timm", "stages.0.0.project.conv.weight", "blocks.0.0.conv_pw.weight"),
    ("v1-b0", "timm", "stages.1.0.expand.conv.weight", "blocks.1.0.conv_pw.weight"),
    ("v1-b0", "timm", "stages.6.0.project.norm.bias", "blocks.6.0.bn3.bias"),
    ("v2-s", "timm", "stages.0.1.project.norm.weight", "blocks.0.1.bn1.weight"),
    ("v2-s", "timm", "stages.1.0.project.norm.weight", "blocks.1.0.bn2.weight"),
    ("v2-s", "timm", "stages.3.0.depthwise.norm.weight", "blocks.3.0.bn2.weight"),
    ("v2-s", "timm", "stages.3.0.squeeze_excite.reduce.bias", "blocks.3.0.se.conv_reduce.bias"),
    ("v2-s", "torchvision", "head.conv.weight", "features.7.0.weight"),
    ("v2-m", "torchvision", "head.norm.running_var", "features.8.1.running_var"),
    ("v1-b0", "torchvision", "head.conv.weight", "features.8.0.weight"),
    ("v1-b0", "torchvision", "stages.0.0.project.conv.weight", "features.1.0.block.2.0.weight"),
    ("v1-b0", "torchvision", "stages.1.1.squeeze_excite.expand.bias", "features.2.1.block.2.fc2.bias"),
    ("v2-s", "torchvision", "stages.1.0.project.conv.weight", "features.2.0.block.1.0.weight"),
    ("v1-b0", "lukemelas", "stages.2.1.depthwise.norm.weight", "_blocks.4._bn1.weight"),
    ("v1-b0", "lukemelas", "classifier.bias", "_fc.bias"),
    ("v1-b0", "keras", "stages.0.0.depthwise.conv.weight", "block1a_dwconv/kernel"),
    ("v2-b0", "keras", "stages.3.0.depthwise.conv.weight", "block4a_dwconv2/kernel"),
    ("v2-b0", "keras", "stages.5.7.depthwise.norm.running_var", "block6h_bn/moving_variance"),
    ("v2-b0", "keras-torch", "stages.0.0.project.norm.running_mean", "block1a_project_bn.running_mean"),
    ("v2-s", "tf", "stages.0.0.project.conv.weight", "blocks_0/conv2d/kernel"),
    ("v2-s", "tf", "stages.0.1.project.norm.weight", "blocks_1/tpu_batch_normalization/gamma"),
    ("v2-s", "tf", "stages.1.0.expand.conv.weight", "blocks_2/conv2d/kernel"),
    ("v2-s", "tf", "stages.1.0.project.conv.weight", "blocks_2/conv2d_1/kernel"),
    ("v2-s", "tf", "stages.3.0.project.norm.bias", "blocks_10/tpu_batch_normalization_2/beta"),
    ("v1-b0", "tf", "stages.0.0.depthwise.conv.weight", "blocks_0/depthwise_conv2d/depthwise_kernel"),
    ("v1-b0", "tf", "stages.0.0.project.conv.weight", "blocks_0/conv2d/kernel"),
    ("v1-b0", "tf", "stages.0.0.depthwise.norm.weight", "blocks_0/tpu_batch_normalization/gamma"),
    ("v1-b0", "tf", "stages.1.0.squeeze_excite.expand.bias", "blocks_1/se/conv2d_1/bias"),
    ("v1-b0", "tf", "classifier.weight", "head/dense/kernel"),
    ("mobilenet-v1", "timm", "stages.3.5.project.conv.weight", "blocks.3.5.conv_pw.weight"),
    ("mobilenet-v1", "timm", "classifier.bias", "classifier.bias"),
    ("mobilenet-v2", "timm", "head.norm.bias", "bn2.bias"),
    ("mobilenet-v2", "torchvision", "stem.norm.bias", "features.0.1.bias"),
    ("mobilenet-v2", "torchvision", "stages.2.0.expand.conv.weight", "features.4.conv.0.0.weight"),
    ("mobilenet-v2", "torchvision", "head.conv.weight", "features.18.0.weight"),
    ("mobilenet-v2", "torchvision", "classifier.weight", "classifier.1.weight"),
    ("v1-lite0", "torchvision", "stages.1.0.expand.conv.weight", "features.2.0.block.0.0.weight"),
    ("resnet-50", "timm", "stem.conv.weight", "conv1.weight"),
    ("resnet-50", "torchvision", "stages.3.2.project.norm.weight", "layer4.2.bn3.weight"),
    ("resnet-50", "torchvision", "classifier.weight", "fc.weight"),
]


@pytest.mark.parametrize(("network", "scheme", "ours", "theirs"), GOLDEN)
def test_names_are_those_of_the_library(network, scheme, ours, theirs):
    assert scheme_names(family.network(network), scheme)[ours] == theirs


# All layers of a block in order, convolution and norm in turn.
BLOCKS = [
    ("v1-b0", "0.0", "timm", "blocks.0.0.", "conv_dw bn1 se.conv_reduce se.conv_expand conv_pw bn2"),
    (
        "v2-s",
        "3.0",
        "timm",
        "blocks.3.0.",
        "conv_pw bn1 conv_dw bn2 se.conv_reduce se.conv_expand conv_pwl bn3",
    ),
    ("v2-s", "1.0", "timm", "blocks.1.0.", "conv_exp bn1 conv_pwl bn2"),
    ("v2-s", "0.0", "timm", "blocks.0.0.", "conv bn1"),
    ("mobilenet-v1", "1.1", "timm", "blocks.1.1.", "conv_dw bn1 conv_pw bn2"),
    ("mobilenet-v2", "0.0", "torchvision", "features.1.conv.", "0.0 0.1 1 2"),
    ("mobilenet-v2", "1.1", "torchvision", "features.3.conv.", "0.0 0.1 1.0 1.1 2 3"),
    ("resnet-50", "0.0", "timm", "layer1.0.", "conv1 bn1 conv2 bn2 conv3 bn3 downsample.0 downsample.1"),
    ("resnet-50", "1.3", "torchvision", "layer2.3.", "conv1 bn1 conv2 bn2 conv3 bn3"),
    ("v1-b0", "0.0", "torchvision", "features.1.0.block.", "0.0 0.1 1.fc1 1.fc2 2.0 2.1"),
    ("v2-s", "3.0", "torchvision", "features.4.0.block.", "0.0 0.1 1.0 1.1 2.fc1 2.fc2 3.0 3.1"),
    ("v2-s", "1.0", "torchvision", "features.2.0.block.", "0.0 0.1 1.0 1.1"),
    ("v2-s", "0.0", "torchvision", "features.1.0.block.", "0.0 0.1"),
    (
        "v1-b0",
        "0.0",
        "lukemelas",
        "_blocks.0.",
        "_depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2",
    ),
    (
        "v1-b0",
        "1.1",
        "lukemelas",
        "_blocks.2.",
        "_expand_conv _bn0 _depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2",
    ),
    ("v1-b0", "0.0", "keras", "block1a_", "dwconv bn se_reduce se_expand project_conv project_bn"),
    (
        "v2-s",
        "3.1",
        "keras",
        "block4b_",
        "expand_conv expand_bn dwconv2 bn se_reduce se_expand project_conv project_bn",
    ),
    ("v1-b0", "0.0", "tf", "blocks_0/", "depthwise_conv2d bn se/conv2d se/conv2d_1 conv2d bn_1"),
    (
        "v2-s",
        "3.0",
        "tf",
        "blocks_10/",
        "conv2d bn depthwise_conv2d bn_1 se/conv2d se/conv2d_1 conv2d_1 bn_2",
    ),
    ("v2-s", "1.0", "tf", "blocks_2/", "conv2d bn conv2d_1 bn_1"),
    ("v2-s", "0.0", "tf", "blocks_0/", "conv2d bn"),
]


@pytest.mark.parametrize(("network", "block", "scheme", "address", "layers"), BLOCKS)
def test_every_layer_of_a_block_has_the_name_of_the_library(network, block, scheme, address, layers):
    names = scheme_names(family.network(network), scheme)
    found = [
        theirs.replace("tpu_batch_normalization", "bn").removeprefix(address)
        for ours, theirs in names.items()
        if ours.startswith(f"stages.{block}.") and ours.endswith(".weight")
    ]
    separator = "." if scheme in TORCH_SCHEMES else "/"
    assert [name.rpartition(separator)[0] for name in found] == layers.split()


def test_a_library_without_a_layer_is_named():
    with pytest.raises(UserError, match=r"lukemelas has no name for 'stages\.0\.0\.project\.conv' of v2-b0"):
        scheme_names(family.network("v2-b0"), "lukemelas")


def test_tensorflow_holds_kernels_as_height_width_in_out():
    kernel = torch.empty(24, 16, 3, 5)  # out, in, height, width
    assert kernel.permute(axes("head.conv.weight", 4, "tf")).shape == (3, 5, 16, 24)
    depthwise = torch.empty(24, 1, 3, 5)
    assert depthwise.permute(axes("stages.0.0.depthwise.conv.weight", 4, "keras")).shape == (3, 5, 24, 1)
    assert torch.empty(10, 4).permute(axes("classifier.weight", 2, "tf")).shape == (4, 10)
