import itertools
import json
from pathlib import Path

import pytest

from effnet.errors import UserError
from effnet.search.objective import Objective
from effnet.search.proposing import propose
from effnet.search.regret import Plan, measure_regret
from effnet.search.strategies import strategy_named
from effnet.search.table import read_table


@pytest.fixture
def path(tmp_path) -> Path:
    """Networks of five layers; their three seeds agree, so that the best observed is the best tried."""
    rows = {
        "".join(map(str, point)): {
            "test_top1_percent": [50 + 7 * point[0] + 3 * point[1] - 2 * point[3]] * 3,
            "params": 1000 + 10 * sum(point),
            "macs": 10**6,
        }
        for point in itertools.product(range(3), repeat=5)
    }
    (tmp_path / "table.json").write_text(json.dumps(rows))
    return tmp_path / "table.json"


def _plan(path, **changes):
    values = {"objective": Objective(), "strategies": ("thompson", "random"), "asks": (5, 40), "seeds": 2}
    return Plan(table=path, **values | changes)


def test_regret_is_what_is_missed_of_the_best_reward(path):
    report = measure_regret(_plan(path), jobs=1)
    best = 0.70 * (1e6) ** -0.07 * 1040**-0.05
    assert report.best == pytest.approx(best)
    for search in report.searches:
        early, late = search.observed
        assert 0.0 <= late <= early < 1.0
    assert max(search.observed[-1] for search in report.of("thompson")) < 0.005


def test_the_regret_of_one_ask_is_that_of_its_network(path):
    (search,) = measure_regret(_plan(path, strategies=("random",), asks=(1,), seeds=1), jobs=1).searches
    point = propose(strategy_named("random"), read_table(path), [], 0, 0)
    top1 = (50 + 7 * point[0] + 3 * point[1] - 2 * point[3]) / 100
    best, found = 0.70 * 1040**-0.05, top1 * (1000 + 10 * sum(point)) ** -0.05
    assert search.observed == search.predicted == (pytest.approx((best - found) / best),)


def test_a_space_that_was_tried_whole_leaves_no_regret(path):
    (search,) = measure_regret(_plan(path, strategies=("evolution",), asks=(243,), seeds=1), jobs=1).searches
    assert search.observed == (0.0,)


def test_processes_change_no_result(path):
    plan = _plan(path, strategies=("random",), asks=(5, 10))
    one, two = (measure_regret(plan, jobs=jobs).to_dict()["strategies"]["random"] for jobs in (1, 2))
    assert one["observed"] == two["observed"]
    assert one["predicted"] == two["predicted"]
    assert len(one["observed"][1]["values"]) == 2


def test_all_strategies_see_the_same_noise_and_fronts_come_to_a_reward(path):
    report = measure_regret(_plan(path, strategies=("nsga2", "tpe"), asks=(30,), seeds=1), jobs=1)
    assert {search.strategy for search in report.searches} == {"nsga2", "tpe"}
    assert all(0.0 <= search.predicted[0] < 1.0 for search in report.searches)


def test_a_front_has_no_regret(path):
    with pytest.raises(UserError, match=r"^regret needs one reward, and a front has none"):
        _plan(path, objective=Objective(kind="pareto"))


def test_more_asks_than_networks_are_refused(path):
    with pytest.raises(UserError, match=r"^all 243 points of the space were tried"):
        measure_regret(_plan(path, strategies=("random",), asks=(244,), seeds=1), jobs=1)
