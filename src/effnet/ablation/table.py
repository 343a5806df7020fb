"""What an ablation is: pure data, from which its runs, its table and its picture are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from effnet.config import Config

FIRST_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a paper reports for a cell. Accuracies are fractions; None: not reported."""

    top1: float
    top1_std: float | None = None
    """Over three runs."""
    train_hours: float | None = None
    """On 32 TPUv3 cores."""
    macs: float | None = None
    """Multiply-adds of the network for one image."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers that are known under their names."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One row or point: what it changes about the recipe that all cells share."""

    name: str
    """Of its folder."""
    label: str
    """For people."""
    changes: tuple[str, ...] = ()
    """As ``--set`` takes them."""
    size_shares: tuple[float, float] | None = None
    """First and last image size, as shares of the recipe's last one; None: the recipe's own sizes."""
    is_evaluated_there: bool = False
    """Whether it is evaluated at that last size, not at the recipe's size of evaluation."""
    paper: Published | None = None
    series: str = ""
    """The line that it lies on in a picture of lines; empty: on all of them."""
    x: float | None = None
    """Where it lies on the axis of a picture of lines; None: at its multiply-adds an image."""

    @property
    def varied(self) -> set[str]:
        """The keys of a configuration that are its own, and not for the user to set."""
        keys = {change.partition("=")[0] for change in self.changes}
        return keys | ({"evaluate.image_size"} if self.is_evaluated_there else set())

    def all_changes(self, base: Config) -> tuple[str, ...]:
        """Return the changes, that of the image sizes included.

        Args:
            base: The configuration that all cells share; it must say its image sizes.
        """
        if self.size_shares is None:
            return self.changes
        assert base.progressive.image_size is not None, "the recipe of an ablation says its image sizes"
        first, last = (round(share * base.progressive.image_size[1]) for share in self.size_shares)
        sizes = [f"progressive.image_size=[{first},{last}]"]
        if self.is_evaluated_there:
            sizes.append(f"evaluate.image_size={last}")
        return (*self.changes, *sizes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """An ablation at one scale."""

    recipe: str
    cells: tuple[Cell, ...]
    changes: tuple[str, ...] = ()
    """Of all cells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """A table or figure of a paper."""

    name: str
    title: str
    source: str
    question: str
    """What it answers, in one sentence."""
    remark: str
    """How it differs from the paper's own, and what the paper leaves open."""
    small: Form
    """For one machine."""
    full: Form
    """With the paper's networks and lengths."""
    picture: Literal["dots", "lines"] = "dots"
    x_label: str = ""
    """Of a picture of lines."""
    looks: bool = False
    """Whether it ends in a picture of what the networks look at in the same images."""

    def form(self, *, full: bool) -> Form:
        """Return the ablation at the paper's scale or at that of one machine."""
        return self.full if full else self.small
