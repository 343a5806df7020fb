"""The largest network within a budget: exact for counted costs, near enough for measured ones."""

from __future__ import annotations

import pytest

from effnet.arch import network, network_cost
from effnet.arch.compound import DOUBLING, Compound, scale_by
from effnet.errors import UserError
from effnet.search.solve import solve

BASE = network("v1-b0")
COMPOUND = Compound()


def make(phi):
    return scale_by(BASE, COMPOUND.at(phi))


def macs(spec):
    return network_cost(spec).macs


@pytest.mark.parametrize(("kind", "budget"), [("macs", 3e7), ("macs", 1e9), ("params", 3e6), ("params", 1e7)])
def test_what_is_found_is_within_the_budget_and_a_little_more_is_not(kind, budget):

    def cost(spec):
        return getattr(network_cost(spec), kind)

    solution = solve(make, cost, budget)
    assert solution.best.cost == cost(solution.best.spec) <= budget < solution.above.cost
    assert solution.above.phi - solution.best.phi < 1e-3
    assert make(solution.best.phi) == solution.best.spec
    assert len(solution.attempts) < 24


def test_the_cost_of_the_base_is_phi_0_or_the_last_phi_with_that_cost():
    solution = solve(make, macs, macs(BASE))
    assert solution.best.cost == macs(BASE)
    assert 0 <= solution.best.phi < 0.02


def test_no_network_is_tried_that_costs_much_more_than_the_budget():
    solution = solve(make, macs, 1.5e9)
    assert max(attempt.cost for attempt in solution.attempts) < 2.5 * 1.5e9


def test_measured_costs_may_leave_a_little_unspent_which_saves_measurements():
    exact, near = solve(make, macs, 1e9), solve(make, macs, 1e9, closeness=0.03)
    assert 0.97e9 <= near.best.cost <= 1e9
    assert len(near.attempts) < len(exact.attempts)


def test_equal_networks_are_asked_for_once():
    asked = []

    def cost(spec):
        asked.append(spec.num_blocks)
        return float(spec.num_blocks)

    solve(lambda phi: scale_by(BASE, DOUBLING["depth"].at(phi)), cost, 30)
    assert len(asked) == len(set(asked))


def test_out_of_reach():
    with pytest.raises(UserError, match=r"the smallest network .* costs 1\.937e.06, so that none"):
        solve(make, macs, 1000)
    with pytest.raises(UserError, match=r"does not change the cost, which is 5\.289e.06 throughout"):
        solve(
            lambda phi: scale_by(BASE, DOUBLING["resolution"].at(phi)),
            lambda spec: network_cost(spec).params,
            1e7,
        )
