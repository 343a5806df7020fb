"""How fast engines were found to be, and what to do about it: functions of numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG

EAGER = "eager"
"""PyTorch, operation by operation; always there."""
PAYING_SECONDS = 120.0
"""Where PyTorch would compute for so long, other engines are measured first: for V2-B0 that takes half a
minute of processor time, and they save a third (docs/log.md)."""
_WORTH_IT = 0.95
"""Another engine than PyTorch must need at most this share of its time."""

_Seconds = Annotated[float, Field(ge=0.0)]


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Figures:
    """Seconds of one engine, as medians.

    Raises:
        pydantic.ValidationError: A value is no number of at least 0.
    """

    start: _Seconds
    """Until it can answer, from its file."""
    one: _Seconds
    """Of one image, computed by all threads."""
    many: _Seconds
    """Of each of many images, of which every thread computes some."""


def fastest_for(figures: Mapping[str, Figures], images: int) -> str:
    """Return the engine that has answered for a number of images first.

    Args:
        figures: By the engines' names; `EAGER` among them.
        images: How many there are.
    """
    return _fastest({name: each.start + images * each.many for name, each in figures.items()})


def fastest_served(figures: Mapping[str, Figures]) -> tuple[str, str]:
    """Return the fastest engines for single images and for many, where the time to start does not matter."""
    return (
        _fastest({name: each.one for name, each in figures.items()}),
        _fastest({name: each.many for name, each in figures.items()}),
    )


def measuring_pays(images: int, seconds_an_image: float) -> bool:
    """Tell whether so many images take so long that other engines should be measured first.

    Args:
        images: How many there are.
        seconds_an_image: Of PyTorch with all threads.
    """
    return images * seconds_an_image > PAYING_SECONDS


def gain(figures: Mapping[str, Figures], name: str, of: str) -> float:
    """Return how many times as fast as PyTorch an engine is.

    Args:
        figures: By the engines' names.
        name: The engine.
        of: ``one`` or ``many``.
    """
    return getattr(figures[EAGER], of) / max(getattr(figures[name], of), 1e-9)


def _fastest(seconds: dict[str, float]) -> str:
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] <= _WORTH_IT * seconds[EAGER] else EAGER
