"""The tables and figures, with the papers' own numbers.

Sources: V2 is 2104.00298, V1 is 1905.11946. Top-1 is on ImageNet-1k.
"""

from __future__ import annotations

from effnet.ablation.table import Ablation, Cell, Form, Published
from effnet.errors import UserError, did_you_mean

_SMALL = "ablation.small"


def _percent(top1: float, std: float | None = None, *, hours: float | None = None) -> Published:
    return Published(
        top1=round(top1 / 100, 6), top1_std=None if std is None else round(std / 100, 6), train_hours=hours
    )


_TABLE_13 = (
    Cell(name="fixed", label="fixed size", changes=("progressive.stages=1",)),
    Cell(
        name="progressive",
        label="progressive resize",
        changes=("progressive.coupled=[]",),
        paper=_percent(84.3, 0.14),
    ),
    Cell(
        name="progressive-adaptive",
        label="progressive resize, adaptive",
        paper=_percent(85.1, 0.07),
    ),
    Cell(
        name="random",
        label="random resize",
        changes=("progressive.mode=random", "progressive.coupled=[]"),
        paper=_percent(83.5, 0.11),
    ),
    Cell(
        name="random-adaptive",
        label="random resize, adaptive",
        changes=("progressive.mode=random",),
        paper=_percent(84.2, 0.10),
    ),
)

ABLATIONS = {
    ablation.name: ablation
    for ablation in (
        Ablation(
            name="table13",
            title="Adaptive regularization",
            source="2104.00298, table 13",
            question="Does regularization that grows with the image size help, however the size is chosen?",
            remark="The fixed size is not in the paper's table. Regularization that is not adaptive has the "
            "last stage's strength throughout. The paper does not name the network; its 85.1 % are those "
            "of V2-M, which --full trains.",
            small=Form(recipe=_SMALL, cells=_TABLE_13),
            full=Form(recipe="v2-m.paper", cells=_TABLE_13),
        ),
    )
}


def ablation_named(name: str) -> Ablation:
    """Return the ablation of that name.

    Raises:
        UserError: There is none; the message names the nearest one.
    """
    if name not in ABLATIONS:
        raise UserError(f"unknown ablation '{name}'{did_you_mean(name, ABLATIONS)}")
    return ABLATIONS[name]
