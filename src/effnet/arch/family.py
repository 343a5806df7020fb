"""The published networks, as tables that can be checked against the papers by eye.

Sources: V1 from 1905.11946 table 1 and the released ``tpu`` code; V2 from 2104.00298 table 4 (ICML
version) and the released ``automl`` code, which agree. Names: ``v1-b0`` ... ``v1-b8``, ``v1-l2``,
``v1-lite0`` ... ``v1-lite4``, the networks of V1's figure 7 (``v1-b0`` and ``v1-b0.deeper``, ``.wider``,
``.higher-resolution``, ``.compound``), ``v2-b0`` ... ``v2-b3``, ``v2-s``, ``-m``, ``-l``, ``-xl``, and
those of `effnet.arch.classics`. Suffixes change any of them, and may follow each other: ``.fusedA-B``
replaces stages A to B by Fused-MBConv (2104.00298 table 3), ``.strideN`` keeps early stages from shrinking
small images.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from effnet.arch.classics import CLASSICS
from effnet.arch.external import AnySpec, ExternalSpec
from effnet.arch.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from effnet.arch.scaling import scale
from effnet.arch.spec import NetworkSpec, StageSpec
from effnet.errors import UserError, did_you_mean


def _mbconv(kernel: int, stride: int, expand: int, channels: int, repeats: int) -> StageSpec:
    return StageSpec(
        operation="mbconv",
        kernel_size=kernel,
        stride=stride,
        expand_ratio=expand,
        channels=channels,
        repeats=repeats,
        se_ratio=0.25,
    )


def _fused(kernel: int, stride: int, expand: int, channels: int, repeats: int) -> StageSpec:
    return StageSpec(
        operation="fused_mbconv",
        kernel_size=kernel,
        stride=stride,
        expand_ratio=expand,
        channels=channels,
        repeats=repeats,
    )


# fmt: off
_V1_STAGES = (  # kernel stride expand channels repeats
    _mbconv(          3,     1,     1,      16,      1),
    _mbconv(          3,     2,     6,      24,      2),
    _mbconv(          5,     2,     6,      40,      2),
    _mbconv(          3,     2,     6,      80,      3),
    _mbconv(          5,     1,     6,     112,      3),
    _mbconv(          5,     2,     6,     192,      4),
    _mbconv(          3,     1,     6,     320,      1),
)

V1_COEFFICIENTS = {  #   width depth image_size dropout
    "v1-b0": (1.0,  1.0,   224,     0.2),
    "v1-b1": (1.0,  1.1,   240,     0.2),
    "v1-b2": (1.1,  1.2,   260,     0.3),
    "v1-b3": (1.2,  1.4,   300,     0.3),
    "v1-b4": (1.4,  1.8,   380,     0.4),
    "v1-b5": (1.6,  2.2,   456,     0.4),
    "v1-b6": (1.8,  2.6,   528,     0.5),
    "v1-b7": (2.0,  3.1,   600,     0.5),
    "v1-b8": (2.2,  3.6,   672,     0.5),
    "v1-l2": (4.3,  5.3,   800,     0.5),
}

_V1_LITE = {  #  width depth image_size dropout
    "v1-lite0": (1.0,  1.0,   224,     0.2),
    "v1-lite1": (1.0,  1.1,   240,     0.2),
    "v1-lite2": (1.1,  1.2,   260,     0.3),
    "v1-lite3": (1.2,  1.4,   280,     0.3),
    "v1-lite4": (1.4,  1.8,   300,     0.3),
}

_V1_FIGURE_7 = {  #               width depth resolution
    "v1-b0.deeper":              (1.0,  4.0,  1.0),
    "v1-b0.wider":               (2.0,  1.0,  1.0),
    "v1-b0.higher-resolution":   (1.0,  1.0,  2.0),
    "v1-b0.compound":            (1.2,  1.4,  1.3),
}

_V2_B = {  # width depth train evaluate dropout
    "v2-b0": (1.0, 1.0, 192,   224,    0.2),
    "v2-b1": (1.0, 1.1, 192,   240,    0.2),
    "v2-b2": (1.1, 1.2, 208,   260,    0.3),
    "v2-b3": (1.2, 1.4, 240,   300,    0.3),
}

_V2_B_STAGES = (  # kernel stride expand channels repeats
    _fused(             3,     1,     1,      16,      1),
    _fused(             3,     2,     4,      32,      2),
    _fused(             3,     2,     4,      48,      2),
    _mbconv(            3,     2,     4,      96,      3),
    _mbconv(            3,     1,     6,     112,      5),
    _mbconv(            3,     2,     6,     192,      8),
)

_V2 = {  # train evaluate dropout
    "v2-s":  (300, 384, 0.2, (
        # kernel stride expand channels repeats
        _fused( 3,     1,     1,      24,      2),
        _fused( 3,     2,     4,      48,      4),
        _fused( 3,     2,     4,      64,      4),
        _mbconv(3,     2,     4,     128,      6),
        _mbconv(3,     1,     6,     160,      9),
        _mbconv(3,     2,     6,     256,     15))),
    "v2-m":  (384, 480, 0.3, (
        _fused( 3,     1,     1,      24,      3),
        _fused( 3,     2,     4,      48,      5),
        _fused( 3,     2,     4,      80,      5),
        _mbconv(3,     2,     4,     160,      7),
        _mbconv(3,     1,     6,     176,     14),
        _mbconv(3,     2,     6,     304,     18),
        _mbconv(3,     1,     6,     512,      5))),
    "v2-l":  (384, 480, 0.4, (
        _fused( 3,     1,     1,      32,      4),
        _fused( 3,     2,     4,      64,      7),
        _fused( 3,     2,     4,      96,      7),
        _mbconv(3,     2,     4,     192,     10),
        _mbconv(3,     1,     6,     224,     19),
        _mbconv(3,     2,     6,     384,     25),
        _mbconv(3,     1,     6,     640,      7))),
    "v2-xl": (384, 512, 0.4, (
        _fused( 3,     1,     1,      32,      4),
        _fused( 3,     2,     4,      64,      8),
        _fused( 3,     2,     4,      96,      8),
        _mbconv(3,     2,     4,     192,     16),
        _mbconv(3,     1,     6,     256,     24),
        _mbconv(3,     2,     6,     512,     32),
        _mbconv(3,     1,     6,     640,      8))),
}
# fmt: on

_SUFFIX = re.compile(r"fused\d+-\d+|stride\d+")

_V1_B0 = NetworkSpec(
    name="v1-b0",
    stages=_V1_STAGES,
    stem_channels=32,
    head_channels=1280,
    image_size=224,
    train_size=224,
    # The V1 release decays batch statistics by 0.99, the V2 release by 0.9 (0.01 and 0.1 here).
    norm_momentum=0.01,
)

_V2_B0 = NetworkSpec(
    name="v2-b0",
    stages=_V2_B_STAGES,
    stem_channels=32,
    head_channels=1280,
    image_size=224,
    train_size=192,
)


@cache
def _published() -> dict[str, NetworkSpec]:
    specs: dict[str, NetworkSpec] = {}
    for name, (width, depth, size, dropout) in V1_COEFFICIENTS.items():
        scaled = scale(_V1_B0, width=width, depth=depth, guard=True, name=name)
        specs[name] = replace(scaled, image_size=size, train_size=size, dropout_rate=dropout)
    lite = replace(_V1_B0, activation="relu6").with_stages(se_ratio=0.0)
    for name, (width, depth, size, dropout) in _V1_LITE.items():
        scaled = scale(lite, width=width, depth=depth, guard=True, fixed_ends=True, name=name)
        specs[name] = replace(scaled, image_size=size, train_size=size, dropout_rate=dropout)
    for name, (width, depth, resolution) in _V1_FIGURE_7.items():
        specs[name] = scale(_V1_B0, width=width, depth=depth, resolution=resolution, guard=True, name=name)
    for name, (width, depth, train_size, image_size, dropout) in _V2_B.items():
        scaled = scale(_V2_B0, width=width, depth=depth, name=name)
        specs[name] = replace(scaled, image_size=image_size, train_size=train_size, dropout_rate=dropout)
    for name, (train_size, image_size, dropout, stages) in _V2.items():
        specs[name] = NetworkSpec(
            name=name,
            stages=stages,
            stem_channels=stages[0].channels,
            head_channels=1280,
            image_size=image_size,
            train_size=train_size,
            dropout_rate=dropout,
        )
    return specs | {spec.name: spec for spec in CLASSICS}


def names() -> list[str]:
    """Return the names of all published networks, those of others last."""
    return list(_published())


def network(name: str) -> NetworkSpec:
    """Return a published network, or one with the suffixes ``.fusedA-B`` and ``.strideN``.

    Raises:
        UserError: No network has that name (the message names the nearest one), or it cannot be changed so.
    """
    specs = _published()
    base, suffixes = name, list[str]()
    while base not in specs:
        base, _, suffix = base.rpartition(".")
        if not _SUFFIX.fullmatch(suffix):
            raise UserError(f"unknown network '{name}'{did_you_mean(name, specs)}")
        suffixes.append(suffix)
    spec = specs[base]
    for suffix in reversed(suffixes):
        numbers = [int(number) for number in re.findall(r"\d+", suffix)]
        is_stride = suffix.startswith("stride")
        spec = (
            limit_stride(spec, *numbers)
            if is_stride
            else fuse_stages(spec, first=numbers[0], last=numbers[1])
        )
    return spec


def fuse_stages(spec: NetworkSpec, *, first: int, last: int) -> NetworkSpec:
    """Replace MBConv by Fused-MBConv in stages ``first`` to ``last``, counted from 1 (2104.00298 table 3).

    Kernel, expansion and width stay; squeeze-and-excitation goes, as in the V2 networks.

    Raises:
        UserError: The stages are not among those of the network, or are none that have a fused form.
    """
    if not 1 <= first <= last <= len(spec.stages):
        raise UserError(f"{spec.name} has stages 1 to {len(spec.stages)}; cannot fuse {first} to {last}")
    for number, stage in enumerate(spec.stages[first - 1 : last], start=first):
        if stage.operation in {"separable", "bottleneck"}:
            raise UserError(
                f"stage {number} of {spec.name} is {stage.operation}, which has no fused form; MBConv has"
            )
    stages = tuple(
        replace(stage, operation="fused_mbconv", se_ratio=0.0) if first <= number <= last else stage
        for number, stage in enumerate(spec.stages, start=1)
    )
    return replace(spec, name=f"{spec.name}.fused{first}-{last}", stages=stages)


def limit_stride(spec: NetworkSpec, stride: int) -> NetworkSpec:
    """Take the stride from as many early stages as it needs for images to shrink by no more than ``stride``.

    For images of some 32 px, of which the published strides leave one pixel (not in the papers). A pooling
    behind the stem goes first.

    Raises:
        UserError: The network's stem alone, or none of its stages, gives that stride.
    """
    stages, total = list(spec.stages), spec.stride
    pooling = spec.stem_pooling and total <= stride
    if spec.stem_pooling and not pooling:
        total //= 2
    for index, stage in enumerate(stages):
        if total <= stride:
            break
        stages[index], total = replace(stage, stride=1), total // stage.stride
    if total != stride:
        raise UserError(f"{spec.name} cannot have a stride of {stride}; 2, 4, 8 and 16 are possible")
    name = f"{spec.name}.stride{stride}"
    return replace(spec, name=name, stages=tuple(stages), stem_pooling=pooling)


def released_preprocessing(spec: AnySpec) -> Preprocessing:
    """Return how the release evaluates a network of this family (facts of the ``automl`` code).

    V2-S and larger: [-1, 1], bilinear, the whole image squashed from 320 px on. All others, also
    networks that are not published: ImageNet mean and deviation, bicubic, a centre crop of
    ``size / (size + 32)``.
    """
    if isinstance(spec, ExternalSpec):
        return spec.preprocessing
    size = spec.image_size
    if spec.name.split(".")[0] in _V2:
        squash = size >= 320
        return Preprocessing(
            image_size=size,
            crop_mode="squash" if squash else "center",
            crop_fraction=1.0 if squash else size / (size + 32),
        )
    return Preprocessing(
        image_size=size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        interpolation="bicubic",
        crop_fraction=size / (size + 32),
    )
