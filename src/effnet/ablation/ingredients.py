"""What several tables are made of: recipes, changes, and numbers as the papers print them."""

from __future__ import annotations

from effnet.ablation.table import Published

SMALL = "ablation.small"
"""The recipe of every table for one machine."""
ANY_CLASSES = ("data.classes=0",)
"""Recipes for ImageNet refuse other data, unless they are told."""
ONE_SIZE = "progressive.stages=1"


def printed(
    top1: float, std: float | None = None, *, hours: float | None = None, macs: float | None = None
) -> Published:
    """Return numbers as the papers print them, in percent."""
    spread = None if std is None else round(std / 100, 6)
    return Published(top1=round(top1 / 100, 6), top1_std=spread, train_hours=hours, macs=macs)
