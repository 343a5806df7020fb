"""What all strategies promise, by name."""

from random import Random
from statistics import fmean

import pytest

from effnet.errors import UserError
from effnet.search.points import Observation
from effnet.search.proposing import propose
from effnet.search.strategies import DEFAULT_STRATEGY, STRATEGIES, strategy_named

NAMES = tuple(STRATEGIES)
LEARNING = tuple(name for name in NAMES if name not in {"random", "nsga2", "nsga3"})


@pytest.mark.parametrize("name", NAMES)
def test_a_search_that_is_resumed_goes_on_as_it_would_have(name, planted, search):
    domain = planted()
    whole = search(strategy_named(name), domain, 45)
    assert search(strategy_named(name), domain, 45, history=whole[:40]) == whole


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_that_was_asked_of_another_history_answers_as_a_new_one(name, planted, search):
    domain, used = planted(), strategy_named(name)
    search(used, domain, 63, seed=1)
    history = search(strategy_named(name), domain, 60)
    # One that was being tried when others were asked for has ended meanwhile.
    before = [*history[:20], Observation(number=20, point=history[20].point, state="running"), *history[21:]]
    for told in (before, history):
        assert propose(used, domain, told, 0, 60) == propose(strategy_named(name), domain, told, 0, 60)


@pytest.mark.parametrize("scores", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_proposed_is_new_canonical_and_feasible(name, scores, planted, search):
    domain = planted(bound=6)
    points = [seen.point for seen in search(strategy_named(name), domain, 60, scores=scores)]
    assert len(set(points)) == 60
    assert all(domain.canonical(point) == point and domain.is_feasible(point) for point in points)


@pytest.mark.parametrize("name", LEARNING)
def test_what_learns_finds_better_networks_than_chance(name, planted, search):
    gaps = {}
    for searcher in (name, "random"):
        found = []
        for seed in range(3):
            domain = planted(sizes=(3, 3, 2, 3, 3, 2, 3, 3), seed=seed)
            history = search(strategy_named(searcher), domain, 70, seed=seed)
            found.append(domain.best() - max(domain.truth(seen.point) for seen in history))
        gaps[searcher] = fmean(found)
    assert gaps[name] < 0.6 * gaps["random"]


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_genetic_algorithms_learn_after_their_first_generation(name, planted, search):
    domain = planted(sizes=(3,) * 8)
    history = search(strategy_named(name), domain, 200)
    first, last = (fmean(domain.truth(seen.point) for seen in part) for part in (history[:50], history[150:]))
    assert last > first + 0.5


@pytest.mark.parametrize("name", NAMES)
def test_a_space_is_searched_to_its_last_point(name, planted, search):
    domain = planted(sizes=(2, 2, 3))
    history = search(strategy_named(name), domain, len(domain.points()))
    assert {seen.point for seen in history} == set(domain.points())
    with pytest.raises(UserError, match=r"^all 8 points of the space were tried; loosen the bounds or widen"):
        propose(strategy_named(name), domain, history, 0, 8)


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_bears_nothing_but_failures(name, planted):
    domain = planted()
    history = [
        Observation(number=number, point=point, state="failed")
        for number, point in enumerate(domain.points()[:30])
    ]
    assert propose(strategy_named(name), domain, history, 0, 30) not in {seen.point for seen in history}


def test_an_unknown_strategy_is_named_with_the_nearest():
    with pytest.raises(UserError, match=r"^unknown strategy 'evolve'; did you mean 'evolution'\?$"):
        strategy_named("evolve")


def test_optuna_is_asked_for_where_it_is_missing(monkeypatch):
    from effnet.search.strategies import optuna_samplers
    from effnet.search.strategies.registry import installed_strategies

    monkeypatch.setattr(optuna_samplers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^strategy 'tpe' needs Optuna, not installed here: pip install 'effnet"
    ):
        strategy_named("tpe")
    assert installed_strategies() == ["thompson", "random", "evolution", "reinforce", "ppo"]


def test_the_default_strategy_is_there():
    assert DEFAULT_STRATEGY in STRATEGIES


def test_random_draws_decide_where_the_history_does_not(planted):
    domain = planted()
    asked = {propose(strategy_named("random"), domain, [], seed, 0) for seed in range(20)}
    assert len(asked) > 10
    assert propose(strategy_named("random"), domain, [], 3, 0) == propose(
        strategy_named("random"), domain, [], 3, 0
    )
    assert strategy_named("evolution").ask(domain, [], Random(0)) in domain.points()
