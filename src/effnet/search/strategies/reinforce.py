"""The papers' controller: a policy that learns by reward, with REINFORCE or PPO.

MnasNet's controller (1807.11626 section 4.2) is a recurrent network; ours has one softmax for each variable,
so fewer numbers to learn from few trials. It is trained anew from the history where that is no continuation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from effnet.search.points import Domain, Observation, Point, Variable
from effnet.search.strategies.candidates import anything
from effnet.search.strategies.pairwise import Layout

_TRIES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySearch:
    """Sample networks from a policy, and make those more probable that were better than usual."""

    batch: int
    """Networks an update learns from."""
    epochs: int
    """Gradient steps with a batch."""
    learning_rate: float
    """Of the logits, for advantages of about 1."""
    clip: float | None
    """How far from 1 the ratio of new to old probability is followed (PPO); None: anywhere."""
    takes_fronts: ClassVar[bool] = False
    _policies: dict[tuple[Variable, ...], Policy] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Of the last domain, to save work."""

    @classmethod
    def reinforce(cls) -> PolicySearch:
        """Return REINFORCE with a moving average as baseline: one step for each network."""
        return cls(batch=1, epochs=1, learning_rate=0.2, clip=None)

    @classmethod
    def ppo(cls) -> PolicySearch:
        """Return PPO (1707.06347 equation 7): several steps with a few networks."""
        return cls(batch=5, epochs=4, learning_rate=1.0, clip=0.2)

    def ask(self, domain: Domain, history: Sequence[Observation], draws: Random) -> Point:
        """See `Strategy.ask`."""
        tried = {seen.point for seen in history}
        probabilities = self._learnt(domain, history).probabilities()
        options = [
            (range(len(variable.values)), probabilities[start : start + len(variable.values)].tolist())
            for variable, start in zip(
                domain.variables, np.cumsum([0, *(len(v.values) for v in domain.variables)])[:-1], strict=True
            )
        ]
        for _ in range(_TRIES):
            point = domain.canonical(tuple(draws.choices(values, weights)[0] for values, weights in options))
            if point not in tried and domain.is_feasible(point):
                return point
        return point if domain.is_feasible(point) else anything(domain, draws, tried)

    def _learnt(self, domain: Domain, history: Sequence[Observation]) -> Policy:
        rewards = [
            (seen.point, seen.scores[0] if seen.state == "done" else None)
            for seen in history
            if seen.state != "running"
        ]
        variables = tuple(domain.variables)
        policy = self._policies.get(variables)
        if policy is None or rewards[: len(policy.seen)] != policy.seen:
            policy = Policy(Layout.of(variables))
            self._policies.clear()
            self._policies[variables] = policy
        for start in range(len(policy.seen), len(rewards) - self.batch + 1, self.batch):
            policy.learn(rewards[start : start + self.batch], self)
        return policy


class Policy:
    """Logits of all choices, and what rewards are usual."""

    _DECAY = 0.9
    """Of the averages, for each network."""

    def __init__(self, layout: Layout) -> None:
        self.seen: list[tuple[Point, float | None]] = []
        self._layout = layout
        self._logits = np.zeros(len(layout.variable_of))
        self._lowest = np.inf
        self._baseline = 0.0
        self._spread = 0.0

    def probabilities(self) -> Float[np.ndarray, " L"]:
        """Return the probability of each value, which sum to 1 for each variable."""
        powers = np.exp(
            self._logits - np.maximum.reduceat(self._logits, self._layout.starts)[self._layout.variable_of]
        )
        return powers / np.add.reduceat(powers, self._layout.starts)[self._layout.variable_of]

    def learn(self, batch: Sequence[tuple[Point, float | None]], settings: PolicySearch) -> None:
        """Climb the expected advantage of a batch; what failed was as bad as the worst until then."""
        advantages = np.array([self._advantage(reward) for _, reward in batch])
        marks = self._layout.one_hot([point for point, _ in batch])
        old = self._log_probability(marks)
        for _ in range(settings.epochs):
            ratios = np.exp(self._log_probability(marks) - old)
            weights = advantages * ratios
            if settings.clip is not None:
                too_far = np.where(advantages > 0, ratios > 1 + settings.clip, ratios < 1 - settings.clip)
                weights = np.where(too_far, 0.0, weights)
            self._logits += settings.learning_rate * (weights[:, None] * (marks - self.probabilities())).mean(
                axis=0
            )
        self.seen.extend(batch)

    def _log_probability(self, marks: Float[np.ndarray, "N L"]) -> Float[np.ndarray, " N"]:
        return marks @ np.log(self.probabilities() + 1e-12)

    def _advantage(self, reward: float | None) -> float:
        """Return by how many usual distances a reward is above the baseline; and take it into both."""
        if reward is None:
            if not np.isfinite(self._lowest):
                return 0.0
            reward = self._lowest
        if not np.isfinite(self._lowest):
            self._baseline = reward
        self._lowest = min(self._lowest, reward)
        above = reward - self._baseline
        self._baseline += (1 - self._DECAY) * above
        self._spread = (
            self._DECAY * self._spread + (1 - self._DECAY) * abs(above) if self._spread else abs(above)
        )
        return float(np.clip(above / self._spread, -3.0, 3.0)) if self._spread else 0.0
