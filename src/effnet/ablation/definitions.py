"""The tables and figures, with the papers' own numbers.

Sources: V2 is 2104.00298, V1 is 1905.11946. Their top-1 is on ImageNet-1k, their hours are on 32 TPUv3 cores.
"""

from __future__ import annotations

from effnet.ablation.ingredients import ANY_CLASSES, ONE_SIZE, SMALL, printed
from effnet.ablation.scalings import SCALINGS
from effnet.ablation.table import Ablation, Cell, Form
from effnet.errors import UserError, did_you_mean

_Cells = tuple[Cell, ...]

_TABLE_3 = {
    "none": printed(82.8, macs=4.5e9),
    "1-3": printed(83.1, macs=7.5e9),
    "1-5": printed(83.1, macs=21.3e9),
    "1-7": printed(81.7, macs=34.4e9),
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
    5:       (printed(78.3, 0.16), printed(81.2, 0.06), printed(82.5, 0.05)),
    10:      (printed(78.0, 0.08), printed(81.6, 0.08), printed(82.7, 0.08)),
    15:      (printed(77.7, 0.15), printed(81.5, 0.05), printed(83.2, 0.09)),
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
    "v1-b7": printed(85.0, hours=54, macs=38e9),
    "v2-m": printed(85.1, hours=13, macs=24e9),
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
    "rn50-224":  (printed(78.1, hours=4.9),  printed(78.4, hours=3.5)),
    "rn50-380":  (printed(80.0, hours=14.3), printed(80.3, hours=5.8)),
    "rn152-380": (printed(82.4, hours=15.5), printed(82.9, hours=7.2)),
    "b4-380":    (printed(82.9, hours=20.8), printed(83.1, hours=9.4)),
    "b5-456":    (printed(83.7, hours=42.9), printed(84.0, hours=15.2)),
}  # fmt: skip


def _table_12(row: str, label: str, *changes: str) -> _Cells:
    """Return a network at one size and progressively, beside a row of the paper."""
    at_one_size, progressive = _TABLE_12[row]
    return (
        Cell(
            name=f"{row}-baseline",
            label=f"{label}, one size",
            changes=(*changes, ONE_SIZE),
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
    Cell(name="fixed", label="fixed size", changes=(ONE_SIZE,)),
    Cell(
        name="progressive",
        label="progressive resize",
        changes=("progressive.coupled=[]",),
        paper=printed(84.3, 0.14),
    ),
    Cell(name="progressive-adaptive", label="progressive resize, adaptive", paper=printed(85.1, 0.07)),
    Cell(
        name="random",
        label="random resize",
        changes=("progressive.mode=random", "progressive.coupled=[]"),
        paper=printed(83.5, 0.11),
    ),
    Cell(
        name="random-adaptive",
        label="random resize, adaptive",
        changes=("progressive.mode=random",),
        paper=printed(84.2, 0.10),
    ),
)

_TABLE_14 = {  # 4 stages                  8 stages                  16 stages
    128:     (printed(83.24, hours=6.2), printed(83.11, hours=6.3), printed(83.20, hours=7.0)),
    256:     (printed(83.15, hours=8.1), printed(83.07, hours=8.5), printed(83.23, hours=9.4)),
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


_ALL = (
    Ablation(
        name="table3",
        title="Fused stages",
        source="2104.00298, table 3",
        question="How many early stages should have Fused-MBConv?",
        remark="The paper's network is V1-B4, which --full trains; the small one is V1-B0 made thin, with "
        "the same stages. Fused stages keep their kernels, and have no squeeze-and-excitation.",
        small=Form(recipe=SMALL, changes=(ONE_SIZE,), cells=_table_3("v1-b0.stride8")),
        full=Form(recipe="v1-b4.release", changes=(ONE_SIZE, *ANY_CLASSES), cells=_table_3("v1-b4")),
    ),
    Ablation(
        name="table5",
        title="RandAugment and image size",
        source="2104.00298, table 5",
        question="Do larger images want stronger augmentation?",
        remark="Every network is evaluated at the size at which it was trained. The paper trains a network "
        "from its search space that it does not print; --full trains V2-S.",
        small=Form(recipe=SMALL, changes=(ONE_SIZE,), cells=_table_5(32)),
        full=Form(recipe="v2-s.paper", changes=(ONE_SIZE, *ANY_CLASSES), cells=_table_5(300)),
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
        small=Form(recipe=SMALL, changes=("model.width=0.2", "model.depth=0.2"), cells=_table_10(".stride8")),
        full=Form(
            recipe="v2-m.paper",
            changes=ANY_CLASSES,
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
            recipe=SMALL,
            cells=(
                *_table_12_small("rn50-380", "timm:resnet10t", 1.0, 1.0),
                *_table_12_small("rn152-380", "timm:resnet18", 1.0, 1.0),
                *_table_12_small("b4-380", "v1-b0.stride8", 0.33, 0.1),
                *_table_12_small("b5-456", "v1-b0.stride8", 0.5, 0.1),
            ),
        ),
        full=Form(
            recipe="v1-b4.table12",
            changes=ANY_CLASSES,
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
        small=Form(recipe=SMALL, cells=_TABLE_13),
        full=Form(recipe="v2-m.paper", changes=ANY_CLASSES, cells=_TABLE_13),
    ),
    Ablation(
        name="table14",
        title="First size and number of stages",
        source="2104.00298, table 14",
        question="How small should the first images be, and how many stages should there be?",
        remark="The paper does not name the network; --full trains V2-S.",
        small=Form(recipe=SMALL, cells=_table_14(32)),
        full=Form(recipe="v2-s.paper", changes=ANY_CLASSES, cells=_table_14(300)),
        picture="lines",
        x_label="stages",
    ),
    *SCALINGS,
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
