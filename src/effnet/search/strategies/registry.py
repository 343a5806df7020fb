"""The strategies by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from effnet.errors import UserError, did_you_mean
from effnet.search.points import Strategy
from effnet.search.strategies.evolution import RegularizedEvolution
from effnet.search.strategies.optuna_samplers import SAMPLERS, OptunaSampling, has_optuna
from effnet.search.strategies.random_search import RandomSearch
from effnet.search.strategies.reinforce import PolicySearch
from effnet.search.strategies.thompson import ThompsonSampling

DEFAULT_STRATEGY = "thompson"
FRONT_STRATEGIES: tuple[str, ...] = ("nsga2", "nsga3")
"""Those that are made for several scores; one reward leaves them a plain genetic algorithm."""

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    DEFAULT_STRATEGY: ThompsonSampling,
    "random": RandomSearch,
    "evolution": RegularizedEvolution,
    "reinforce": PolicySearch.reinforce,
    "ppo": PolicySearch.ppo,
    **{name: partial(OptunaSampling, name) for name in SAMPLERS},
}


def installed_strategies() -> list[str]:
    """Return the names of those that need nothing that is not installed."""
    return [name for name in STRATEGIES if name not in SAMPLERS or has_optuna()]


def strategy_named(name: str) -> Strategy:
    """Return a new strategy, which keeps work between asks; so keep it, too.

    Raises:
        UserError: There is no such strategy, or it needs a package that is not installed.
    """
    if name not in STRATEGIES:
        raise UserError(f"unknown strategy '{name}'{did_you_mean(name, STRATEGIES)}")
    return STRATEGIES[name]()
