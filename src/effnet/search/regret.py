"""How far from a table's best network a strategy ends, by how often it may ask.

Regret is (best - reward of what is taken home) / best, with the rewards of the truth. Taken home is what had
the best observed reward, as by somebody who trains each candidate once; or what a model of all observations
expects most of, the same model for all strategies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

import numpy as np

from effnet.errors import UserError
from effnet.search.measures import Measures
from effnet.search.objective import Objective
from effnet.search.points import Observation
from effnet.search.proposing import propose
from effnet.search.strategies import FRONT_STRATEGIES, strategy_named
from effnet.search.strategies.pairwise import Layout
from effnet.search.strategies.posterior import PairwisePosterior
from effnet.search.strategies.thompson import targets
from effnet.search.table import Table, read_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is compared."""

    table: Path
    objective: Objective
    """A reward; strategies that take fronts only of several measures are told these measures."""
    strategies: tuple[str, ...]
    asks: tuple[int, ...]
    """After how many asks to look, rising."""
    seeds: int
    """Searches of each strategy, with the seeds 0, 1 ..."""

    def __post_init__(self) -> None:
        if self.objective.is_front:
            raise UserError("regret needs one reward, and a front has none; give another objective")
        for name in self.strategies:
            strategy_named(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """One search of a strategy."""

    strategy: str
    seed: int
    observed: tuple[float, ...]
    """Regret of the best observed after each number of asks, as a fraction of the best reward."""
    predicted: tuple[float, ...]
    """Regret of what is expected to be best."""
    ask_ms: float
    """Mean processor time of an ask, in milliseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RegretReport:
    """All searches of a plan."""

    plan: Plan
    best: float
    """Reward of the table's best network."""
    searches: tuple[Search, ...]

    def of(self, strategy: str) -> list[Search]:
        """Return the searches of a strategy, by seed."""
        own = [search for search in self.searches if search.strategy == strategy]
        return sorted(own, key=lambda search: search.seed)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON; regrets are fractions."""
        return {
            "table": self.plan.table.name,
            "objective": str(self.plan.objective),
            "asks": list(self.plan.asks),
            "seeds": self.plan.seeds,
            "best_reward": self.best,
            "strategies": {
                name: {
                    "observed": _columns([search.observed for search in self.of(name)]),
                    "predicted": _columns([search.predicted for search in self.of(name)]),
                    "ask_ms": fmean(search.ask_ms for search in self.of(name)),
                }
                for name in self.plan.strategies
            },
        }


def _columns(rows: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    return [
        {
            "mean": fmean(column),
            "std": stdev(column) if len(column) > 1 else None,
            "values": list(column),
        }
        for column in zip(*rows, strict=True)
    ]


def measure_regret(plan: Plan, jobs: int, announce: Callable[[Search], None] | None = None) -> RegretReport:
    """Search the table with each strategy and seed.

    Args:
        plan: What is compared.
        jobs: Processes; they change no result.
        announce: Told of each search that has ended.

    Raises:
        UserError: The table cannot be read, or has fewer networks than asks.
    """
    table = read_table(plan.table)
    best = _rewards(table, plan.objective)[1]
    tasks = [(name, seed) for seed in range(plan.seeds) for name in plan.strategies]
    searches = []
    if jobs == 1:
        for name, seed in tasks:
            searches.append(search_table(table, plan, name, seed, best))
            if announce:
                announce(searches[-1])
        return RegretReport(plan=plan, best=best, searches=tuple(searches))
    with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (plan, best)) as pool:
        futures = [pool.submit(_search, name, seed) for name, seed in tasks]
        for future in as_completed(futures):
            searches.append(future.result())
            if announce:
                announce(searches[-1])
    return RegretReport(plan=plan, best=best, searches=tuple(searches))


def _rewards(table: Table, objective: Objective) -> tuple[Callable[[Measures], float], float]:
    """Return a function for the reward, and the best reward."""

    def score(measures: Measures) -> float:
        return objective.scores(measures)[0]

    def reward(measures: Measures) -> float:
        value = objective.reward(measures)
        assert value is not None
        return value

    return reward, reward(table.truths([table.optimum(score)])[0])


_task: tuple[Table, Plan, float] | None = None


def _begin(plan: Plan, best: float) -> None:
    global _task  # noqa: PLW0603 - a process of the pool reads the table once
    _task = read_table(plan.table), plan, best


def _search(name: str, seed: int) -> Search:
    assert _task is not None
    table, plan, best = _task
    return search_table(table, plan, name, seed, best)


def search_table(table: Table, plan: Plan, name: str, seed: int, best: float) -> Search:
    """Search a table once.

    Args:
        table: What is asked for.
        plan: Says with what objective and how long.
        name: Of the strategy.
        seed: Of the asks and of the noise. The noise of a network does not depend on the strategy.
        best: Reward of the best network.
    """
    strategy, objective = strategy_named(name), plan.objective
    told = Objective(kind="pareto", goals=objective.needs) if name in FRONT_STRATEGIES else objective
    history: list[Observation] = []
    rewards: list[float] = []
    observed, predicted, spent = [], [], 0.0

    def regret(index: int) -> float:
        (truth,) = table.truths([history[index].point])
        reward = objective.reward(truth)
        assert reward is not None
        return (best - reward) / best

    for number in range(plan.asks[-1]):
        started = time.process_time()
        point = propose(strategy, table, history, seed, number)
        spent += time.process_time() - started
        measures = table.observe(point, Random(f"{seed}/{point}"))
        rewards.append(objective.scores(measures)[0])
        history.append(Observation(number=number, point=point, state="done", scores=told.scores(measures)))
        if number + 1 in plan.asks:
            observed.append(regret(rewards.index(max(rewards))))
            predicted.append(regret(_expected_best(table, history, rewards)))
    return Search(
        strategy=name,
        seed=seed,
        observed=tuple(observed),
        predicted=tuple(predicted),
        ask_ms=spent / plan.asks[-1] * 1000.0,
    )


def _expected_best(table: Table, history: Sequence[Observation], rewards: Sequence[float]) -> int:
    points = [seen.point for seen in history]
    seen = [
        Observation(number=number, point=point, state="done", scores=(reward,))
        for number, (point, reward) in enumerate(zip(points, rewards, strict=True))
    ]
    mean = PairwisePosterior(Layout.of(table.variables)).mean(points, targets(seen))
    return int(np.argmax(mean.values(points)))
