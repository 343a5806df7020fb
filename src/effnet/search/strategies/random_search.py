"""Random search, which 2104.00298 (section 3.3) found as good as its reinforcement learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from effnet.search.points import Domain, Observation, Point
from effnet.search.strategies.candidates import anything


@dataclass(frozen=True, slots=True)
class RandomSearch:
    """Every choice with the same probability, whatever was found before."""

    takes_fronts: ClassVar[bool] = False

    def ask(self, domain: Domain, history: Sequence[Observation], draws: Random) -> Point:
        """See `Strategy.ask`."""
        return anything(domain, draws, {seen.point for seen in history})
