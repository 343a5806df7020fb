"""Which network of another library is which of ours, and the constants it is built with."""

from __future__ import annotations

from dataclasses import replace

from effnet.arch import family
from effnet.arch.spec import NetworkSpec, Output
from effnet.errors import UserError, did_you_mean
from effnet.weights.names import Scheme

_TIMM_CLASSICS = {
    "mobilenet-v1": "mobilenetv1_100",
    "mobilenet-v2": "mobilenetv2_100",
    "resnet-50": "resnet50",
}

TORCHVISION = {
    **{f"v1-b{number}": f"efficientnet_b{number}" for number in range(8)},
    **{f"v2-{size}": f"efficientnet_v2_{size}" for size in "sml"},
    "mobilenet-v2": "mobilenet_v2",
    "resnet-50": "resnet50",
}
"""torchvision's name of each network that it has."""


RELEASED_21K_CLASSES = 21_843
"""Logits of the weights released for ImageNet-21k."""

PRETRAINED = "pretrained"
"""Instead of a hub name: the best released weights of the network."""

_TAGS = {
    "v1-b8": "ap_in1k",
    "v1-l2": "ns_jft_in1k",
    **dict.fromkeys([f"v1-b{number}" for number in range(8)], "ns_jft_in1k"),
    **dict.fromkeys([f"v1-lite{number}" for number in range(5)], "in1k"),
    **dict.fromkeys(["v2-b0", "v2-b1", "v2-b2"], "in1k"),
    **dict.fromkeys(["v2-b3", "v2-s", "v2-m", "v2-l", "v2-xl"], "in21k_ft_in1k"),
    # Those that timm itself takes when no weights are named.
    "mobilenet-v1": "ra4_e3600_r224_in1k",
    "mobilenet-v2": "ra_in1k",
    "resnet-50": "a1_in1k",
}


def released_output(num_classes: int) -> Output:
    """Return how the logits of weights that do not say become probabilities.

    Those for ImageNet-21k were trained again with a sigmoid loss and released in July 2021, as the README of
    the release says; all others had a softmax.
    """
    return "sigmoid" if num_classes == RELEASED_21K_CLASSES else "softmax"


def pretrained_name(spec: NetworkSpec) -> str:
    """Return the hub name of the best released weights of a network, by ImageNet top-1 (timm's results).

    Of the networks of `effnet.arch.classics` they are those that timm takes by default.

    Raises:
        UserError: No weights of this network were released.
    """
    name = published_name(spec)
    if name not in _TAGS:
        raise UserError(
            f"no pretrained weights of {spec.name} were released; give a file or a hub name, or one of the "
            f"networks {', '.join(_TAGS)}"
        )
    return f"timm/{timm_name(name, same_padding=True)}.{_TAGS[name]}"


def published_name(spec: NetworkSpec) -> str | None:
    """Return the first published network with the same layers, whatever its sizes and classes are."""
    return next((name for name in family.names() if same_layers(family.network(name), spec)), None)


def same_layers(one: NetworkSpec, other: NetworkSpec) -> bool:
    """Tell whether two networks differ at most in input channels, classes and constants."""
    return _layers(one) == _layers(other)


def _layers(spec: NetworkSpec) -> tuple[object, ...]:
    stem = (spec.stem_channels, spec.stem_kernel_size, spec.stem_pooling)
    return spec.stages, stem, spec.head_channels


def timm_name(name: str, *, same_padding: bool) -> str:
    """Return timm's name of a published network such as ``v2-s``.

    Args:
        name: Ours; not one of V1's figure 7, which are no networks of timm.
        same_padding: Take the ``tf_`` form. timm has no other one of ``v2-b0`` to ``v2-b3``, and none of the
            networks of `effnet.arch.classics`.
    """
    if name in _TIMM_CLASSICS:
        return _TIMM_CLASSICS[name]
    version, variant = name.split("-")
    prefix = "tf_" if same_padding or name.startswith("v2-b") else ""
    if version == "v2":
        return f"{prefix}efficientnetv2_{variant}"
    return f"{prefix}efficientnet_{variant}"


def from_timm_name(architecture: str) -> NetworkSpec:
    """Return the network that timm builds under a name, with timm's constants.

    ``tf_`` networks pad as TensorFlow does and have epsilon 1e-3, all others pad symmetrically and have
    1e-5; the momentum of batch norm is 0.1 in both.

    Raises:
        UserError: The name is none of these networks.
    """
    known = {
        timm_name(name, same_padding=same_padding): name
        for name in family.names()
        if "." not in name
        for same_padding in (True, False)
    }
    if architecture not in known:
        raise UserError(
            f"'{architecture}' of timm is no network of this family{did_you_mean(architecture, known)}"
        )
    is_tensorflow = architecture.startswith("tf_")
    return replace(
        family.network(known[architecture]),
        padding="same" if is_tensorflow else "symmetric",
        norm_epsilon=1e-3 if is_tensorflow else 1e-5,
        norm_momentum=0.1,
    )


def with_conventions(spec: NetworkSpec, scheme: Scheme) -> NetworkSpec:
    """Return the network with the padding and batch norm that the names of its weights imply.

    timm's names leave it open, and so do ours: then the network stays as it is.
    """
    if scheme == "torchvision":
        return _torchvision_conventions(spec)
    if scheme == "lukemelas":
        return replace(spec, padding="same", norm_epsilon=1e-3, norm_momentum=0.01)
    if scheme in {"keras", "keras-torch", "tf"}:
        return replace(spec, padding="same", norm_epsilon=1e-3)
    return spec


def _torchvision_conventions(spec: NetworkSpec) -> NetworkSpec:
    name = published_name(spec) or ""
    epsilon, momentum = 1e-3, 0.1
    if name in _TIMM_CLASSICS:
        epsilon = 1e-5
    elif name.startswith("v1"):
        epsilon, momentum = (1e-3, 0.01) if name >= "v1-b5" else (1e-5, 0.1)
    return replace(spec, padding="symmetric", norm_epsilon=epsilon, norm_momentum=momentum)
