"""The ``config.json`` beside the weights of a timm model: which network, its classes, its preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from effnet.arch import family
from effnet.arch.classics import CLASSICS
from effnet.arch.external import AnySpec, ExternalSpec
from effnet.arch.io import from_dict, to_dict
from effnet.arch.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from effnet.arch.scaling import scale
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.weights.networks import from_timm_name, published_name, same_layers, timm_name

_PADDINGS = {"same": "same", "": "symmetric", "symmetric": "symmetric"}
_SCALABLE = ("v2-b0", "v2-s", "v2-m", "v2-l", "v2-xl")
_SCALED_HEAD = {"v2-b0", "v2-s"}  # timm keeps the head of the larger ones
_WITHOUT_EFFECT = {"in_chans", "num_classes", "drop_rate", "drop_path_rate", "global_pool"}


def from_timm_config(
    config: Mapping[str, Any], where: str
) -> tuple[NetworkSpec, Preprocessing, tuple[str, ...] | None]:
    """Read the network, its preprocessing and its class names, if any.

    Args:
        config: The JSON document, in timm's present form or in the old one without ``pretrained_cfg``.
        where: Where it came from, for messages.

    Raises:
        UserError: It describes a network or a preprocessing that is not known here.
    """
    if "architecture" not in config:
        raise UserError(f"{where} is no description of a timm model: it has no 'architecture'")
    pretrained: Mapping[str, Any] = config.get("pretrained_cfg", config)
    try:
        data = _apply_arguments(from_timm_name(str(config["architecture"])), config.get("model_args", {}))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    data["in_channels"] = pretrained.get("input_size", (3,))[0]
    data["num_classes"] = config.get("num_classes", pretrained.get("num_classes", 1000))
    spec = from_dict(NetworkSpec, data, where)
    return spec, preprocessing_of(pretrained, where), _class_names(config, pretrained, spec.num_classes)


def to_timm_config(
    spec: NetworkSpec, class_names: Sequence[str] | None, preprocessing: Preprocessing
) -> dict[str, Any]:
    """Describe a network so that timm builds the same one.

    Raises:
        UserError: timm has no such network, or cannot be told its constants.
    """
    architecture, arguments = _architecture(spec)
    is_resnet = spec.stages[0].operation == "bottleneck"
    if is_resnet:
        _check_resnet(spec)
        ends = {"first_conv": "conv1", "classifier": "fc"}
        constants: dict[str, Any] = {}
    else:
        ends = {"first_conv": "conv_stem", "classifier": "classifier"}
        constants = {
            "pad_type": "same" if spec.padding == "same" else "",
            "bn_eps": spec.norm_epsilon,
            "bn_momentum": spec.norm_momentum,
        }
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": spec.num_classes,
        "num_features": spec.feature_channels,
        "global_pool": "avg",
        "model_args": {**arguments, "act_layer": spec.activation, **constants},
        "pretrained_cfg": _pretrained_config(spec, preprocessing) | ends,
    }
    return config if class_names is None else config | {"label_names": list(class_names)}


def _check_resnet(spec: NetworkSpec) -> None:
    """Refuse what timm's ResNets cannot be told; momentum changes no logits."""
    theirs = from_timm_name("resnet50")
    for key in ("padding", "norm_epsilon"):
        ours, its = getattr(spec, key), getattr(theirs, key)
        if ours != its:
            raise UserError(
                f"timm's resnet50 has {key} {its} and cannot be told another, these weights were trained "
                f"with {ours}: its logits would differ"
            )


def external_config(
    spec: ExternalSpec, class_names: Sequence[str] | None, preprocessing: Preprocessing
) -> dict[str, Any]:
    """Describe a network of timm's own.

    Raises:
        UserError: It was trained with another epsilon than timm builds it with.
    """
    if spec.norm_epsilon is not None:
        raise UserError(
            f"{spec.name} was trained with model.norm_epsilon {spec.norm_epsilon:g}, which timm cannot be "
            "told: its logits would differ"
        )
    config: dict[str, Any] = {
        "architecture": spec.architecture,
        "num_classes": spec.num_classes,
        "pretrained_cfg": _pretrained_config(spec, preprocessing) | {"classifier": spec.classifier},
    }
    return config if class_names is None else config | {"label_names": list(class_names)}


def _pretrained_config(spec: AnySpec, preprocessing: Preprocessing) -> dict[str, Any]:
    size = preprocessing.image_size
    return {
        "num_classes": spec.num_classes,
        "input_size": [spec.in_channels, size, size],
        "fixed_input_size": False,
        "pool_size": None,
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_fraction,
        "crop_mode": preprocessing.crop_mode,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
    }


def _architecture(spec: NetworkSpec) -> tuple[str, dict[str, float]]:
    name = published_name(spec)
    if name is not None and "." not in name:
        return timm_name(name, same_padding=spec.padding == "same"), {}
    for base in map(family.network, _SCALABLE):
        coefficients = _coefficients(base, spec)
        if coefficients is not None:
            width, depth = coefficients
            arguments = {"channel_multiplier": width, "depth_multiplier": depth}
            return timm_name(base.name, same_padding=spec.padding == "same"), arguments
    raise UserError(
        f"timm has no network with the layers of {spec.name}: it has v1-b0 to v1-b8, v1-l2, v1-lite0 to "
        f"v1-lite4, all of V2, and of V2 also what compound scaling makes of {', '.join(_SCALABLE)}; and "
        f"{', '.join(spec.name for spec in CLASSICS)}"
    )


def _scaled_by_timm(base: NetworkSpec, width: float, depth: float) -> NetworkSpec:
    # timm has the 10 % rule of V1 in all but the base network of V2.
    scaled = scale(base, width=width, depth=depth, guard=base.name != "v2-b0")
    return scaled if base.name in _SCALED_HEAD else replace(scaled, head_channels=base.head_channels)


def _coefficients(base: NetworkSpec, spec: NetworkSpec) -> tuple[float, float] | None:
    """Find width and depth that scale ``base`` to ``spec``: any inside the bounds that rounding leaves."""
    if len(base.stages) != len(spec.stages):
        return None
    pairs = [(base.stem_channels, spec.stem_channels)]
    if base.name in _SCALED_HEAD:
        pairs.append((base.head_channels, spec.head_channels))
    pairs += [(one.channels, other.channels) for one, other in zip(base.stages, spec.stages, strict=True)]
    repeats = [(one.repeats, other.repeats) for one, other in zip(base.stages, spec.stages, strict=True)]
    width = _middle([((other - 4) / one, (other + 4) / one) for one, other in pairs])
    depth = _middle([((other - 1) / one, other / one) for one, other in repeats])
    return (width, depth) if same_layers(_scaled_by_timm(base, width, depth), spec) else None


def _middle(bounds: Sequence[tuple[float, float]]) -> float:
    return (max(low for low, _ in bounds) + min(high for _, high in bounds)) / 2


def _apply_arguments(spec: NetworkSpec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {name: value for name, value in arguments.items() if name not in _WITHOUT_EFFECT}
    width, depth = arguments.pop("channel_multiplier", 1.0), arguments.pop("depth_multiplier", 1.0)
    if (width, depth) != (1.0, 1.0):
        spec = _scaled_by_timm(spec, width, depth)
    padding = arguments.pop("pad_type", spec.padding)
    if padding not in _PADDINGS:
        raise UserError(f"the padding '{padding}' of timm is not known here; known: same, symmetric")
    activation = arguments.pop("act_layer", spec.activation)
    changes = {
        "padding": _PADDINGS[padding],
        "activation": "silu" if activation == "swish" else activation,
        "norm_epsilon": arguments.pop("bn_eps", spec.norm_epsilon),
        "norm_momentum": arguments.pop("bn_momentum", spec.norm_momentum),
    }
    if arguments:
        raise UserError(f"timm's model arguments {', '.join(sorted(arguments))} are not known here")
    return to_dict(spec) | changes


def preprocessing_of(pretrained: Mapping[str, Any], where: str) -> Preprocessing:
    """Read how timm evaluates weights.

    Args:
        pretrained: timm's ``pretrained_cfg``.
        where: Where it came from, for messages.

    Raises:
        UserError: It is a preprocessing that is not known here.
    """
    tested = pretrained.get("test_input_size") is not None
    size = pretrained["test_input_size"] if tested else pretrained.get("input_size", (3, 224, 224))
    crop = (tested and pretrained.get("test_crop_pct")) or pretrained.get("crop_pct", 0.875)
    data = {
        "image_size": size[-1],
        "mean": pretrained.get("mean", IMAGENET_MEAN),
        "std": pretrained.get("std", IMAGENET_STD),
        "interpolation": pretrained.get("interpolation", "bicubic"),
        "crop_mode": pretrained.get("crop_mode", "center"),
        "crop_fraction": crop,
    }
    return from_dict(Preprocessing, data, where)


def _class_names(
    config: Mapping[str, Any], pretrained: Mapping[str, Any], classes: int
) -> tuple[str, ...] | None:
    names = config.get("label_names") or pretrained.get("label_names") or config.get("labels")
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names, key=int)]
    return tuple(map(str, names)) if isinstance(names, Sequence) and len(names) == classes else None
