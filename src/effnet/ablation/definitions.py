"""The tables and figures, with the papers' own numbers.

Sources: V2 is 2104.00298, V1 is 1905.11946. Their top-1 is on ImageNet-1k, their hours are on 32 TPUv3 cores.
"""

from __future__ import annotations

from effnet.ablation.table import Ablation, Cell, Form, Published
from effnet.errors import UserError, did_you_mean

_SMALL = "ablation.small"
_ANY_CLASSES = ("data.classes=0",)
"""Recipes for ImageNet refuse other data, unless they are told."""
_FIXED = "progressive.stages=1"

_Cells = tuple[Cell, ...]


def _paper(
    top1: float, std: float | None = None, *, hours: float | None = None, macs: float | None = None
) -> Published:
    """Return numbers as the papers print them, in percent."""
    spread = None if std is None else round(std / 100, 6)
    return Published(top1=round(top1 / 100, 6), top1_std=spread, train_hours=hours, macs=macs)


_TABLE_3 = {
    "none": _paper(82.8, macs=4.5e9),
    "1-3": _paper(83.1, macs=7.5e9),
    "1-5": _paper(83.1, macs=21.3e9),
    "1-7": _paper(81.7, macs=34.4e9),
}


def _table_3(base: str) -> _Cells:
    return tuple(
        Cell(
            name=f"fused-{stages}",
            label="no stage fused" if stages == "none" else f"stages {stages} fused",
            changes=(f"model.network={base}" if stages == "none" else f"model.network={base}.fused{stages}",),
            paper=paper,
        )
        for stages, paper in _TABLE_3.items()
    )


_TABLE_5_PX = (128, 192, 300)
_TABLE_5 = {  # 128 px               192 px               300 px
    5:       (_paper(78.3, 0.16), _paper(81.2, 0.06), _paper(82.5, 0.05)),
    10:      (_paper(78.0, 0.08), _paper(81.6, 0.08), _paper(82.7, 0.08)),
    15:      (_paper(77.7, 0.15), _paper(81.5, 0.05), _paper(83.2, 0.09)),
}  # fmt: skip


def _table_5(last: int) -> _Cells:
    """Return all magnitudes at all sizes, where the recipe's last size is so many pixels."""
    shares = [px / _TABLE_5_PX[-1] for px in _TABLE_5_PX]
    return tuple(
        Cell(
            name=f"size{px}-magnitude{magnitude}",
            label=f"{share * last:.0f} px, magnitude {magnitude}",
            changes=(f"progressive.randaugment_magnitude=[{magnitude}.0,{magnitude}.0]",),
            size_shares=(share, share),
            is_evaluated_there=True,
            paper=_TABLE_5[magnitude][column],
            series=f"{share:.0%} of the largest size",
            x=magnitude,
        )
        for column, (px, share) in enumerate(zip(_TABLE_5_PX, shares, strict=True))
        for magnitude in _TABLE_5
    )


_TABLE_10 = {
    "v1-b7": _paper(85.0, hours=54, macs=38e9),
    "v2-m": _paper(85.1, hours=13, macs=24e9),
}


def _table_10(suffix: str, **changes: tuple[str, ...]) -> _Cells:
    return tuple(
        Cell(
            name=name,
            label=name.upper(),
            changes=(f"model.network={name}{suffix}", *changes.get(name.replace("-", "_"), ())),
            paper=paper,
        )
        for name, paper in _TABLE_10.items()
    )


_TABLE_12 = {  #     one size                  progressive
    "rn50-224":  (_paper(78.1, hours=4.9),  _paper(78.4, hours=3.5)),
    "rn50-380":  (_paper(80.0, hours=14.3), _paper(80.3, hours=5.8)),
    "rn152-380": (_paper(82.4, hours=15.5), _paper(82.9, hours=7.2)),
    "b4-380":    (_paper(82.9, hours=20.8), _paper(83.1, hours=9.4)),
    "b5-456":    (_paper(83.7, hours=42.9), _paper(84.0, hours=15.2)),
}  # fmt: skip


def _table_12(row: str, label: str, *changes: str) -> _Cells:
    """Return a network at one size and progressively, beside a row of the paper."""
    at_one_size, progressive = _TABLE_12[row]
    return (
        Cell(
            name=f"{row}-baseline",
            label=f"{label}, one size",
            changes=(*changes, _FIXED),
            paper=at_one_size,
        ),
        Cell(name=f"{row}-progressive", label=f"{label}, progressive", changes=changes, paper=progressive),
    )


def _table_12_full(row: str, network: str, px: int) -> _Cells:
    sizes = (f"progressive.image_size=[128,{px}]", f"evaluate.image_size={px}")
    return _table_12(row, f"{network.removeprefix('timm:')} at {px} px", f"model.network={network}", *sizes)


def _table_12_small(row: str, network: str, width: float, depth: float) -> _Cells:
    size = "" if width == depth == 1 else f" x {width:g}"
    return _table_12(
        row,
        f"{network.removeprefix('timm:')}{size}",
        f"model.network={network}",
        f"model.width={width}",
        f"model.depth={depth}",
    )


_TABLE_13 = (
    Cell(name="fixed", label="fixed size", changes=(_FIXED,)),
    Cell(
        name="progressive",
        label="progressive resize",
        changes=("progressive.coupled=[]",),
        paper=_paper(84.3, 0.14),
    ),
    Cell(name="progressive-adaptive", label="progressive resize, adaptive", paper=_paper(85.1, 0.07)),
    Cell(
        name="random",
        label="random resize",
        changes=("progressive.mode=random", "progressive.coupled=[]"),
        paper=_paper(83.5, 0.11),
    ),
    Cell(
        name="random-adaptive",
        label="random resize, adaptive",
        changes=("progressive.mode=random",),
        paper=_paper(84.2, 0.10),
    ),
)

_TABLE_14 = {  # 4 stages                  8 stages                  16 stages
    128:     (_paper(83.24, hours=6.2), _paper(83.11, hours=6.3), _paper(83.20, hours=7.0)),
    256:     (_paper(83.15, hours=8.1), _paper(83.07, hours=8.5), _paper(83.23, hours=9.4)),
}  # fmt: skip
_TABLE_14_LAST_PX = 300


def _table_14(last: int) -> _Cells:
    """Return all first sizes with all numbers of stages, where the recipe's last size is so many pixels."""
    return tuple(
        Cell(
            name=f"size{px}-stages{stages}",
            label=f"from {px / _TABLE_14_LAST_PX * last:.0f} px in {stages} stages",
            changes=(f"progressive.stages={stages}",),
            size_shares=(px / _TABLE_14_LAST_PX, 1.0),
            paper=paper,
            series=f"from {px / _TABLE_14_LAST_PX:.0%} of the last size",
            x=stages,
        )
        for px, papers in _TABLE_14.items()
        for stages, paper in zip((4, 8, 16), papers, strict=True)
    )


_SCALINGS = {  #     series        width depth resolution  the paper's
    "base":         ("",           1.0,  1.0,  1.0,        _paper(76.3, macs=0.4e9)),
    "width-1.4":    ("width",      1.4,  1.0,  1.0,        None),
    "width-2":      ("width",      2.0,  1.0,  1.0,        _paper(78.9, macs=1.8e9)),
    "depth-2":      ("depth",      1.0,  2.0,  1.0,        None),
    "depth-4":      ("depth",      1.0,  4.0,  1.0,        _paper(79.0, macs=1.8e9)),
    "resolution-1.4": ("resolution", 1.0, 1.0, 1.4,        None),
    "resolution-2": ("resolution", 1.0,  1.0,  2.0,        _paper(79.1, macs=1.9e9)),
    "compound-1":   ("compound",   1.1,  1.2,  1.15,       None),
    "compound-2":   ("compound",   1.2,  1.4,  1.3,        _paper(81.1, macs=1.8e9)),
}  # fmt: skip


def _scalings(network: str, width: float, depth: float, size_share: float) -> _Cells:
    """Return one base network made larger along one axis or all.

    Args:
        network: To scale.
        width: Of the base.
        depth: Of the base.
        size_share: Of the base, as a share of the recipe's last size.
    """
    return tuple(
        Cell(
            name=name,
            label=f"{series or name}: w {by_width:g}, d {by_depth:g}, r {by_size:g}",
            changes=(
                _FIXED,
                f"model.network={network}",
                f"model.width={width * by_width:g}",
                f"model.depth={depth * by_depth:g}",
            ),
            size_shares=(size_share * by_size, size_share * by_size),
            is_evaluated_there=True,
            paper=paper,
            series=series,
        )
        for name, (series, by_width, by_depth, by_size, paper) in _SCALINGS.items()
    )


_ALL = (
    Ablation(
        name="table3",
        title="Fused stages",
        source="2104.00298, table 3",
        question="How many early stages should have Fused-MBConv?",
        remark="The paper's network is V1-B4, which --full trains; the small one is V1-B0 made thin, with "
        "the same stages. Fused stages keep their kernels, and have no squeeze-and-excitation.",
        small=Form(recipe=_SMALL, changes=(_FIXED,), cells=_table_3("v1-b0.stride8")),
        full=Form(recipe="v1-b4.release", changes=(_FIXED, *_ANY_CLASSES), cells=_table_3("v1-b4")),
    ),
    Ablation(
        name="table5",
        title="RandAugment and image size",
        source="2104.00298, table 5",
        question="Do larger images want stronger augmentation?",
        remark="Every network is evaluated at the size at which it was trained. The paper trains a network "
        "from its search space that it does not print; --full trains V2-S.",
        small=Form(recipe=_SMALL, changes=(_FIXED,), cells=_table_5(32)),
        full=Form(recipe="v2-s.paper", changes=(_FIXED, *_ANY_CLASSES), cells=_table_5(300)),
        picture="lines",
        x_label="RandAugment magnitude",
    ),
    Ablation(
        name="table10",
        title="V1 and V2 with the same training",
        source="2104.00298, table 10",
        question="What do the networks of V2 gain where the training is the same?",
        remark="Both are trained progressively. The small networks are V1-B7 and V2-M at a fifth of their "
        "width and depth. The paper does not give the sizes for V1-B7; --full ends at its 600 px.",
        small=Form(
            recipe=_SMALL, changes=("model.width=0.2", "model.depth=0.2"), cells=_table_10(".stride8")
        ),
        full=Form(
            recipe="v2-m.paper",
            changes=_ANY_CLASSES,
            cells=_table_10("", v1_b7=("progressive.image_size=[128,600]", "evaluate.image_size=600")),
        ),
    ),
    Ablation(
        name="table12",
        title="Progressive learning for other networks",
        source="2104.00298, table 12",
        question="Does progressive learning make other networks better and faster to train, too?",
        remark="ResNets come from timm (pip install 'effnet[timm]'). Small: ResNet-10-T beside the paper's "
        "ResNet-50 at 380 px, ResNet-18 beside its ResNet-152, and two widths of V1-B0 beside its B4 and B5. "
        "The paper does not give the first sizes and the strengths; --full takes 128 px and those of V2-S.",
        small=Form(
            recipe=_SMALL,
            cells=(
                *_table_12_small("rn50-380", "timm:resnet10t", 1.0, 1.0),
                *_table_12_small("rn152-380", "timm:resnet18", 1.0, 1.0),
                *_table_12_small("b4-380", "v1-b0.stride8", 0.33, 0.1),
                *_table_12_small("b5-456", "v1-b0.stride8", 0.5, 0.1),
            ),
        ),
        full=Form(
            recipe="v1-b4.table12",
            changes=_ANY_CLASSES,
            cells=(
                *_table_12_full("rn50-224", "timm:resnet50", 224),
                *_table_12_full("rn50-380", "timm:resnet50", 380),
                *_table_12_full("rn152-380", "timm:resnet152", 380),
                *_table_12_full("b4-380", "v1-b4", 380),
                *_table_12_full("b5-456", "v1-b5", 456),
            ),
        ),
    ),
    Ablation(
        name="table13",
        title="Adaptive regularization",
        source="2104.00298, table 13",
        question="Does regularization that grows with the image size help, however the size is chosen?",
        remark="The fixed size is not in the paper's table. Regularization that is not adaptive has the "
        "last stage's strength throughout. The paper does not name the network; its 85.1 % are those "
        "of V2-M, which --full trains.",
        small=Form(recipe=_SMALL, cells=_TABLE_13),
        full=Form(recipe="v2-m.paper", changes=_ANY_CLASSES, cells=_TABLE_13),
    ),
    Ablation(
        name="table14",
        title="First size and number of stages",
        source="2104.00298, table 14",
        question="How small should the first images be, and how many stages should there be?",
        remark="The paper does not name the network; --full trains V2-S.",
        small=Form(recipe=_SMALL, cells=_table_14(32)),
        full=Form(recipe="v2-s.paper", changes=_ANY_CLASSES, cells=_table_14(300)),
        picture="lines",
        x_label="stages",
    ),
    Ablation(
        name="fig-scaling",
        title="Compound scaling",
        source="1905.11946, figures 3 and 8, table 7",
        question="Is it better to make a network wider, deeper and its images larger all at once?",
        remark="The paper's numbers are those of its table 7. Every network is evaluated at the size at "
        "which it was trained. The small base is a quarter as wide and half as deep as V1-B0, at half the "
        "size.",
        small=Form(recipe=_SMALL, cells=_scalings("v1-b0.stride8", 0.25, 0.5, 0.5)),
        full=Form(recipe="v1-b0.release", changes=_ANY_CLASSES, cells=_scalings("v1-b0", 1.0, 1.0, 1.0)),
        picture="lines",
        x_label="multiply-adds an image",
    ),
)

ABLATIONS = {ablation.name: ablation for ablation in _ALL}


def ablation_named(name: str) -> Ablation:
    """Return the ablation of that name.

    Raises:
        UserError: There is none; the message names the nearest one.
    """
    if name not in ABLATIONS:
        raise UserError(f"unknown ablation '{name}'{did_you_mean(name, ABLATIONS)}")
    return ABLATIONS[name]
