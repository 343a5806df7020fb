"""The tensors of a network: our names and shapes, and what other libraries call them.

Sources: the state dicts of timm and torchvision, the layer names of Keras Applications, and the
variables of the ``tpu`` and ``automl`` checkpoints. Everything is derived from `NetworkSpec`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from effnet.arch.spec import BlockSpec, NetworkSpec
from effnet.errors import UserError

Scheme = Literal["effnet", "timm", "torchvision", "lukemelas", "keras", "keras-torch", "tf"]
"""``keras`` has Keras' own variables and layout, ``keras-torch`` its layer names with PyTorch's variables
and layout, ``tf`` the variables of the released checkpoints without the model's name in front."""

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
TORCH_SCHEMES = frozenset({"effnet", "timm", "torchvision", "lukemelas", "keras-torch"})
"""Schemes with PyTorch's layout; the others hold kernels as (height, width, in, out)."""

BATCHES = "num_batches_tracked"

_COLUMNS: tuple[Scheme, ...] = ("timm", "torchvision", "lukemelas", "keras", "tf")
_NONE = "-"  # the library has no such layer

# fmt: off
_ENDS = {  #     timm          torchvision          lukemelas     keras          tf
    "stem.conv":  ("conv_stem",  "features.0.0",      "_conv_stem", "stem_conv",   "stem/conv2d"),
    "stem.norm":  ("bn1",        "features.0.1",      "_bn0",       "stem_bn",     "stem/{norm}"),
    "head.conv":  ("conv_head",  "features.{last}.0", "_conv_head", "top_conv",    "head/conv2d"),
    "head.norm":  ("bn2",        "features.{last}.1", "_bn1",       "top_bn",      "head/{norm}"),
    "classifier": ("classifier", "classifier.1",      "_fc",        "predictions", "head/dense"),
}

_RESNET_ENDS = {
    "stem.conv":  ("conv1",      "conv1",             _NONE,        _NONE,         _NONE),
    "stem.norm":  ("bn1",        "bn1",               _NONE,        _NONE,         _NONE),
    "head.conv":  (_NONE,        _NONE,               _NONE,        _NONE,         _NONE),
    "head.norm":  (_NONE,        _NONE,               _NONE,        _NONE,         _NONE),
    "classifier": ("fc",         "fc",                _NONE,        _NONE,         _NONE),
}

_BLOCK = (
    "blocks.{stage}.{position}.",           # timm
    "features.{number}.{position}.block.",  # torchvision
    "_blocks.{index}.",                     # lukemelas
    "block{number}{letter}_",               # keras
    "blocks_{index}/",                      # tf
)
_RESNET_BLOCK = "layer{number}.{position}."
_TORCHVISION_MOBILENET_BLOCK = "features.{feature}.conv."

# timm numbers the norms of a block, and TensorFlow its convolutions and norms, in order of creation: the
# same name is another layer in another kind of block.
_LAYERS = {  #                   timm              tv       lukemelas          keras           tf
    "mbconv": {
        "expand.conv":           ("conv_pw",        "0.0",   "_expand_conv",    "expand_conv",  "conv2d"),
        "expand.norm":           ("bn1",            "0.1",   "_bn0",            "expand_bn",    "{norm}"),
        "depthwise.conv":        ("conv_dw",        "1.0",   "_depthwise_conv", "{dwconv}",     "{dw}"),
        "depthwise.norm":        ("bn2",            "1.1",   "_bn1",            "bn",           "{norm}_1"),
        "squeeze_excite.reduce": ("se.conv_reduce", "2.fc1", "_se_reduce",      "se_reduce",    "{se}"),
        "squeeze_excite.expand": ("se.conv_expand", "2.fc2", "_se_expand",      "se_expand",    "{se}_1"),
        "project.conv":          ("conv_pwl",       "3.0",   "_project_conv",   "project_conv", "conv2d_1"),
        "project.norm":          ("bn3",            "3.1",   "_bn2",            "project_bn",   "{norm}_2"),
    },
    "mbconv without expansion": {
        "depthwise.conv":        ("conv_dw",        "0.0",   "_depthwise_conv", "{dwconv}",     "{dw}"),
        "depthwise.norm":        ("bn1",            "0.1",   "_bn1",            "bn",           "{norm}"),
        "squeeze_excite.reduce": ("se.conv_reduce", "1.fc1", "_se_reduce",      "se_reduce",    "{se}"),
        "squeeze_excite.expand": ("se.conv_expand", "1.fc2", "_se_expand",      "se_expand",    "{se}_1"),
        "project.conv":          ("conv_pw",        "2.0",   "_project_conv",   "project_conv", "conv2d"),
        "project.norm":          ("bn2",            "2.1",   "_bn2",            "project_bn",   "{norm}_1"),
    },
    "fused": {
        "expand.conv":           ("conv_exp",       "0.0",   _NONE,             "expand_conv",  "conv2d"),
        "expand.norm":           ("bn1",            "0.1",   _NONE,             "expand_bn",    "{norm}"),
        "squeeze_excite.reduce": ("se.conv_reduce", _NONE,   _NONE,             "se_reduce",    "{se}"),
        "squeeze_excite.expand": ("se.conv_expand", _NONE,   _NONE,             "se_expand",    "{se}_1"),
        "project.conv":          ("conv_pwl",       "1.0",   _NONE,             "project_conv", "conv2d_1"),
        "project.norm":          ("bn2",            "1.1",   _NONE,             "project_bn",   "{norm}_1"),
    },
    "fused without expansion": {
        "squeeze_excite.reduce": (_NONE,            _NONE,   _NONE,             "se_reduce",    "{se}"),
        "squeeze_excite.expand": (_NONE,            _NONE,   _NONE,             "se_expand",    "{se}_1"),
        "project.conv":          ("conv",           "0.0",   _NONE,             "project_conv", "conv2d"),
        "project.norm":          ("bn1",            "0.1",   _NONE,             "project_bn",   "{norm}"),
    },
    "separable": {
        "depthwise.conv":        ("conv_dw",        _NONE,   _NONE,             _NONE,          _NONE),
        "depthwise.norm":        ("bn1",            _NONE,   _NONE,             _NONE,          _NONE),
        "project.conv":          ("conv_pw",        _NONE,   _NONE,             _NONE,          _NONE),
        "project.norm":          ("bn2",            _NONE,   _NONE,             _NONE,          _NONE),
    },
    "bottleneck": {
        "reduce.conv":           ("conv1",          "conv1", _NONE,             _NONE,          _NONE),
        "reduce.norm":           ("bn1",            "bn1",   _NONE,             _NONE,          _NONE),
        "spatial.conv":          ("conv2",          "conv2", _NONE,             _NONE,          _NONE),
        "spatial.norm":          ("bn2",            "bn2",   _NONE,             _NONE,          _NONE),
        "project.conv":          ("conv3",          "conv3", _NONE,             _NONE,          _NONE),
        "project.norm":          ("bn3",            "bn3",   _NONE,             _NONE,          _NONE),
        "shortcut.conv":         ("downsample.0",   "downsample.0", _NONE,      _NONE,          _NONE),
        "shortcut.norm":         ("downsample.1",   "downsample.1", _NONE,      _NONE,          _NONE),
    },
}

# torchvision has MBConv without squeeze-and-excitation in MobileNetV2 alone, with names of its own.
_TORCHVISION_MOBILENET_LAYERS = {
    "mbconv": {
        "expand.conv": "0.0", "expand.norm": "0.1",
        "depthwise.conv": "1.0", "depthwise.norm": "1.1",
        "project.conv": "2", "project.norm": "3",
    },
    "mbconv without expansion": {
        "depthwise.conv": "0.0", "depthwise.norm": "0.1",
        "project.conv": "1", "project.norm": "2",
    },
}
# fmt: on

_TENSORFLOW_VARIABLES = {
    "norm": {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
    "other": {"weight": "kernel", "bias": "bias"},
}


def state_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in the state dict of a network, in its order."""
    return {
        f"{layer}.{variable}": shape
        for layer, weight in _layers(spec)
        for variable, shape in _variables(layer, weight).items()
    }


def scheme_names(spec: NetworkSpec, scheme: Scheme) -> dict[str, str]:
    """Return what a library calls each of our tensors, in our order.

    Args:
        spec: The network.
        scheme: Whose names.

    Returns:
        Their name for each of ours. ``num_batches_tracked`` is left out where they have none.

    Raises:
        UserError: The library has no names for a layer of this network.
    """
    shapes = state_shapes(spec)
    if scheme == "effnet":
        return {name: name for name in shapes}
    prefixes = _prefixes(spec, "keras" if scheme == "keras-torch" else scheme)
    names: dict[str, str] = {}
    for name in shapes:
        layer, _, variable = name.rpartition(".")
        if variable == BATCHES and scheme not in {"timm", "torchvision", "lukemelas"}:
            continue
        prefix = prefixes[layer]
        if prefix.endswith(_NONE):
            raise UserError(f"{scheme} has no name for '{layer}' of {spec.name}")
        names[name] = _theirs(prefix, layer, variable, scheme)
    return names


def axes(name: str, rank: int, scheme: Scheme) -> tuple[int, ...]:
    """Return the order in which a scheme has the axes of our tensor ``name``, for ``Tensor.permute``."""
    if scheme in TORCH_SCHEMES or rank == 1:
        return tuple(range(rank))
    if rank == 2:
        return (1, 0)
    return (2, 3, 0, 1) if name.endswith("depthwise.conv.weight") else (2, 3, 1, 0)


def _layers(spec: NetworkSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    side = spec.stem_kernel_size
    yield from _conv("stem", (spec.stem_channels, spec.in_channels, side, side))
    for block in spec.blocks():
        for layer, weight in _block_layers(block):
            yield f"stages.{block.stage}.{block.position}.{layer}", weight
    if spec.head_channels:
        yield from _conv("head", (spec.head_channels, spec.stages[-1].channels, 1, 1))
    yield "classifier", (spec.num_classes, spec.feature_channels)


def _conv(name: str, weight: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.conv", weight
    yield f"{name}.norm", weight[:1]


def _block_layers(block: BlockSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    inputs, hidden, outputs = block.in_channels, block.hidden_channels, block.out_channels
    kernel = (block.kernel_size, block.kernel_size)
    if block.operation == "bottleneck":
        yield from _conv("reduce", (hidden, inputs, 1, 1))
        yield from _conv("spatial", (hidden, hidden, *kernel))
        yield from _conv("project", (outputs, hidden, 1, 1))
        if block.has_shortcut_conv:
            yield from _conv("shortcut", (outputs, inputs, 1, 1))
        return
    has_depthwise, expands = block.operation in {"mbconv", "separable"}, hidden != inputs
    if expands:
        yield from _conv("expand", (hidden, inputs, *((1, 1) if has_depthwise else kernel)))
    if has_depthwise:
        yield from _conv("depthwise", (hidden, 1, *kernel))
    if block.se_channels:
        yield "squeeze_excite.reduce", (block.se_channels, hidden, 1, 1)
        yield "squeeze_excite.expand", (hidden, block.se_channels, 1, 1)
    yield from _conv("project", (outputs, hidden, *((1, 1) if has_depthwise or expands else kernel)))


def _variables(layer: str, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    if layer.endswith(".conv"):
        return {"weight": weight}
    if layer.endswith(".norm"):
        vectors = ("weight", "bias", "running_mean", "running_var")
        return dict.fromkeys(vectors, weight) | {BATCHES: ()}
    return {"weight": weight, "bias": weight[:1]}


def _prefixes(spec: NetworkSpec, scheme: Scheme) -> dict[str, str]:
    column = _COLUMNS.index(scheme)
    is_mobilenet = scheme == "torchvision" and _is_like_mobilenet_v2(spec)
    is_resnet = spec.stages[0].operation == "bottleneck"
    words = {
        "last": (spec.num_blocks if is_mobilenet else len(spec.stages)) + 1,
        "norm": "tpu_batch_normalization",
        "dw": "depthwise_conv2d",
        "se": "se/conv2d",
        # Keras Applications renamed the depthwise layers in V2, whose first stage is fused.
        "dwconv": "dwconv2" if spec.stages[0].operation == "fused_mbconv" else "dwconv",
    }
    ends = _RESNET_ENDS if is_resnet else _ENDS
    prefixes = {layer: names[column].format_map(words) for layer, names in ends.items()}
    for block in spec.blocks():
        form = _RESNET_BLOCK if block.operation == "bottleneck" else _BLOCK[column]
        address = (_TORCHVISION_MOBILENET_BLOCK if is_mobilenet else form).format(
            feature=block.index + 1,
            stage=block.stage,
            number=block.stage + 1,
            position=block.position,
            letter=chr(ord("a") + block.position),
            index=block.index,
        )
        kind = _kind(block)
        for layer, _ in _block_layers(block):
            own = _TORCHVISION_MOBILENET_LAYERS[kind][layer] if is_mobilenet else _LAYERS[kind][layer][column]
            prefixes[f"stages.{block.stage}.{block.position}.{layer}"] = address + own.format_map(words)
    return prefixes


def _is_like_mobilenet_v2(spec: NetworkSpec) -> bool:
    return all(
        (stage.operation, stage.kernel_size, stage.se_ratio) == ("mbconv", 3, 0.0) for stage in spec.stages
    )


def _kind(block: BlockSpec) -> str:
    if block.operation in {"separable", "bottleneck"}:
        return block.operation
    operation = "mbconv" if block.operation == "mbconv" else "fused"
    return operation if block.hidden_channels != block.in_channels else f"{operation} without expansion"


def _theirs(prefix: str, layer: str, variable: str, scheme: Scheme) -> str:
    if scheme in TORCH_SCHEMES:
        return f"{prefix}.{variable}"
    kind = "norm" if layer.endswith(".norm") else "other"
    name = _TENSORFLOW_VARIABLES[kind][variable]
    if scheme == "tf" and layer.endswith("depthwise.conv"):
        name = "depthwise_kernel"
    return f"{prefix}/{name}"
