"""What a strategy sees: points of a finite grid, and what is known of those that were tried.

A strategy knows nothing of networks, devices or files. A space of networks, or a table of networks that
somebody else has trained, is a `Domain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol, TypeAlias, runtime_checkable

Value: TypeAlias = int | float | str | bool
Point: TypeAlias = tuple[int, ...]
"""For each variable, the index of its value."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One choice, such as the kernel of a stage."""

    name: str
    """Such as ``stage3.kernel_size``; stages are counted from 1."""
    values: tuple[Value, ...]
    """What it can be; where that has an order, in that order."""


def is_inside(point: Point, variables: Sequence[Variable]) -> bool:
    """Whether a point has an index of a value for every variable."""
    return len(point) == len(variables) and all(
        0 <= index < len(variable.values) for index, variable in zip(point, variables, strict=True)
    )


def chosen(point: Point, variables: Sequence[Variable]) -> dict[str, Value]:
    """Return the values that a point's indices stand for, by the names of their variables."""
    return {variable.name: variable.values[index] for index, variable in zip(point, variables, strict=True)}


@runtime_checkable
class Domain(Protocol):
    """All points that can be asked for."""

    @property
    def variables(self) -> tuple[Variable, ...]:
        """The choices, in the order of a point's indices."""

    def canonical(self, point: Point) -> Point:
        """Return the one point that stands for all that mean the same network."""

    def is_feasible(self, point: Point) -> bool:
        """Whether a canonical point is there and within all bounds that need no measuring."""


@runtime_checkable
class Anchored(Protocol):
    """A domain that knows where to begin when so few points are feasible that chance finds none."""

    @property
    def anchors(self) -> tuple[Point, ...]:
        """Feasible, canonical points, near which others may be; empty: nothing is feasible."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What is known of a point that was asked for."""

    number: int
    """Place in the order of asking, from 0."""
    point: Point
    """Canonical."""
    state: Literal["running", "done", "failed"]
    """``failed`` also stands for what was rejected unmeasured, or is over a bound."""
    scores: tuple[float, ...] = ()
    """Logarithm of the reward, or, where a front is sought, of each measure, that of a cost negated: more is
    better. Empty unless done."""


@runtime_checkable
class Strategy(Protocol):
    """What to try next, as a function of what was tried: the same history and draws give the same point."""

    @property
    def takes_fronts(self) -> bool:
        """Whether it can be told several scores of a point; else they are made one, see `propose`."""

    def ask(self, domain: Domain, history: Sequence[Observation], draws: Random) -> Point:
        """Return a feasible, canonical point, by preference one that was not tried.

        Args:
            domain: All points.
            history: All that was asked for, in the order of asking, points that are being tried included.
            draws: Random numbers of this ask alone.
        """
