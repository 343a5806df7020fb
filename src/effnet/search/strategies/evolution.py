"""Regularized evolution: the youngest live, whether or not they are good (1802.01548, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from effnet.search.points import Domain, Observation, Point
from effnet.search.strategies.candidates import anything, near


@dataclass(frozen=True, kw_only=True, slots=True)
class RegularizedEvolution:
    """A child of the best of a sample of the last networks, one choice changed."""

    population: int = 20
    """How many of the last that are done may be parents; so many are drawn at random to begin with. The paper
    has 100 of 20,000 networks."""
    sample: int = 5
    """How many of these a parent is the best of; the paper has 25."""
    takes_fronts: ClassVar[bool] = False

    def ask(self, domain: Domain, history: Sequence[Observation], draws: Random) -> Point:
        """See `Strategy.ask`."""
        tried = {seen.point for seen in history}
        living = [seen for seen in history if seen.state == "done"][-self.population :]
        if len(history) < self.population or not living:
            return anything(domain, draws, tried)
        parent = max(draws.sample(living, min(self.sample, len(living))), key=lambda seen: seen.scores[0])
        return near(domain, parent.point, draws, tried) or anything(domain, draws, tried)
