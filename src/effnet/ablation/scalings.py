"""Larger networks along one axis or all: what V1 scaled, EfficientNet-B0 and the networks of others.

Source: 1905.11946 (V1), whose top-1 is on ImageNet-1k.
"""

from __future__ import annotations

from effnet.ablation.ingredients import ANY_CLASSES, ONE_SIZE, SMALL, printed
from effnet.ablation.table import Ablation, Cell, Form

_Cells = tuple[Cell, ...]

_SCALINGS = {  #     series        width depth resolution  the paper's
    "base":         ("",           1.0,  1.0,  1.0,        printed(76.3, macs=0.4e9)),
    "width-1.4":    ("width",      1.4,  1.0,  1.0,        None),
    "width-2":      ("width",      2.0,  1.0,  1.0,        printed(78.9, macs=1.8e9)),
    "depth-2":      ("depth",      1.0,  2.0,  1.0,        None),
    "depth-4":      ("depth",      1.0,  4.0,  1.0,        printed(79.0, macs=1.8e9)),
    "resolution-1.4": ("resolution", 1.0, 1.0, 1.4,        None),
    "resolution-2": ("resolution", 1.0,  1.0,  2.0,        printed(79.1, macs=1.9e9)),
    "compound-1":   ("compound",   1.1,  1.2,  1.15,       None),
    "compound-2":   ("compound",   1.2,  1.4,  1.3,        printed(81.1, macs=1.8e9)),
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
                ONE_SIZE,
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


_TABLE_3 = {
    "mobilenet-v1": {  # width depth resolution  the paper's
        "base":         (1.0,  1.0,  1.0,        printed(70.6, macs=0.6e9)),
        "width-2":      (2.0,  1.0,  1.0,        printed(74.2, macs=2.2e9)),
        "resolution-2": (1.0,  1.0,  2.0,        printed(72.7, macs=2.2e9)),
        "compound":     (1.2,  1.4,  1.3,        printed(75.6, macs=2.3e9)),
    },
    "mobilenet-v2": {
        "base":         (1.0,  1.0,  1.0,        printed(72.0, macs=0.3e9)),
        "depth-4":      (1.0,  4.0,  1.0,        printed(76.8, macs=1.2e9)),
        "width-2":      (2.0,  1.0,  1.0,        printed(76.4, macs=1.1e9)),
        "resolution-2": (1.0,  1.0,  2.0,        printed(74.8, macs=1.2e9)),
        "compound":     (1.2,  1.4,  1.3,        printed(77.4, macs=1.3e9)),
    },
    "resnet-50": {
        "base":         (1.0,  1.0,  1.0,        printed(76.0, macs=4.1e9)),
        "depth-4":      (1.0,  4.0,  1.0,        printed(78.1, macs=16.2e9)),
        "width-2":      (2.0,  1.0,  1.0,        printed(77.7, macs=14.7e9)),
        "resolution-2": (1.0,  1.0,  2.0,        printed(77.5, macs=16.4e9)),
        "compound":     (1.2,  1.4,  1.3,        printed(78.8, macs=16.7e9)),
    },
}  # fmt: skip

_SMALL_BASES = {  #  width  depth
    "mobilenet-v1": (0.25,  1.0),
    "mobilenet-v2": (0.5,   0.5),
    "resnet-50":    (0.125, 0.333),
}  # fmt: skip
"""Of the networks of table 3, for one machine."""


def _table_3(suffix: str, bases: dict[str, tuple[float, float]], size_share: float) -> _Cells:
    """Return the networks of table 3, each scaled in its ways.

    Args:
        suffix: Of the networks' names.
        bases: Width and depth of the bases; those that are left out are as published.
        size_share: Of the bases, as a share of the recipe's last size.
    """
    found = []
    for network, ways in _TABLE_3.items():
        width, depth = bases.get(network, (1.0, 1.0))
        for way, (by_width, by_depth, by_size, paper) in ways.items():
            changes = (
                ONE_SIZE,
                f"model.network={network}{suffix}",
                f"model.width={width * by_width:g}",
                f"model.depth={depth * by_depth:g}",
            )
            found.append(
                Cell(
                    name=f"{network}-{way}",
                    label=f"{network}: w {by_width:g}, d {by_depth:g}, r {by_size:g}",
                    changes=changes,
                    size_shares=(size_share * by_size, size_share * by_size),
                    is_evaluated_there=True,
                    paper=paper,
                )
            )
    return tuple(found)


_FIGURE_7 = {  #           width depth resolution  the paper's
    "baseline":            (1.0,  1.0,  1.0,        printed(76.3, macs=0.4e9)),
    "deeper":              (1.0,  4.0,  1.0,        printed(79.0, macs=1.8e9)),
    "wider":               (2.0,  1.0,  1.0,        printed(78.9, macs=1.8e9)),
    "higher-resolution":   (1.0,  1.0,  2.0,        printed(79.1, macs=1.9e9)),
    "compound":            (1.2,  1.4,  1.3,        printed(81.1, macs=1.8e9)),
}  # fmt: skip


def _figure_7(size_share: float, *, published: bool) -> _Cells:
    """Return the five networks whose maps V1's figure 7 shows.

    Args:
        size_share: Of the baseline, as a share of the recipe's last size.
        published: Whether they are those of V1 by name, or the recipe's network scaled alike.
    """
    return tuple(
        Cell(
            name=name,
            label=f"{name}: w {width:g}, d {depth:g}, r {resolution:g}",
            changes=(f"model.network=v1-b0{'' if name == 'baseline' else f'.{name}'}",)
            if published
            else (f"model.width={width:g}", f"model.depth={depth:g}"),
            size_shares=(size_share * resolution, size_share * resolution),
            is_evaluated_there=True,
            paper=paper,
        )
        for name, (width, depth, resolution, paper) in _FIGURE_7.items()
    )


_GROWN = ("model.network=v2-b0", "model.grow_from=v2-b0", "progressive.image_size=[384,384]")

_NO_DROP_PATH = "progressive.drop_path_rate=[0.0,0.0]"

SCALINGS = (
    Ablation(
        name="fig-scaling",
        title="Compound scaling",
        source="1905.11946, figures 3 and 8, table 7",
        question="Is it better to make a network wider, deeper and its images larger all at once?",
        remark="The paper's numbers are those of its table 7. Every network is evaluated at the size at "
        "which it was trained. The small base is a quarter as wide and half as deep as V1-B0, at half the "
        "size.",
        small=Form(recipe=SMALL, cells=_scalings("v1-b0.stride8", 0.25, 0.5, 0.5)),
        full=Form(recipe="v1-b0.release", changes=ANY_CLASSES, cells=_scalings("v1-b0", 1.0, 1.0, 1.0)),
        picture="lines",
        x_label="multiply-adds an image",
    ),
    Ablation(
        name="figure7",
        title="Where scaled networks look",
        source="1905.11946, figure 7 and table 7",
        question="Does a network that is scaled in all ways look at more of what matters?",
        remark="Class activation maps (1512.04150) of the same images, for the class that each has. The "
        "paper's networks, which --full trains, are EfficientNet-B0 scaled; the small ones are V2-B0, whose "
        "pretrained weights are grown (1511.05641) into each network and fine-tuned.",
        small=Form(recipe="finetune", changes=(ONE_SIZE, *_GROWN), cells=_figure_7(0.5, published=False)),
        full=Form(
            recipe="v1-b0.release",
            changes=(ONE_SIZE, *ANY_CLASSES),
            cells=_figure_7(1.0, published=True),
        ),
        looks=True,
    ),
    Ablation(
        name="v1-table3",
        title="Compound scaling of other networks",
        source="1905.11946, table 3",
        question="Does compound scaling make other networks better than one axis alone does, too?",
        remark="Every network is evaluated at the size at which it was trained. The small bases are thin, "
        "shallow and for half of the last size, scaled by the paper's coefficients. The paper does not give "
        "the training; --full has that of V1-B0 without stochastic depth.",
        small=Form(recipe=SMALL, changes=(_NO_DROP_PATH,), cells=_table_3(".stride8", _SMALL_BASES, 0.5)),
        full=Form(recipe="v1-b0.release", changes=(_NO_DROP_PATH, *ANY_CLASSES), cells=_table_3("", {}, 1.0)),
    ),
)
"""The tables and figures about scaling."""
