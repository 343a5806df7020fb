"""Bounds: what is excluded and why, and the smallest networks of a space against enumeration."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.arch import NetworkSpec, StageSpec, from_dict, network, network_cost
from effnet.errors import UserError
from effnet.search.bounds import BoundedSpace, Bounds, count
from effnet.search.measures import Measures
from effnet.search.moves import sample
from effnet.search.points import Anchored
from effnet.search.rules import load_space
from effnet.search.space import SearchSpace, StageChoices

SIZE = 33  # odd, so that every stride rounds


def tiny_space():
    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=4, channels=24, repeats=1)
    choices = StageChoices(
        operation=("mbconv", "fused_mbconv", "conv"),
        kernel_size=(3,),
        expand_ratio=(4,),
        repeats=(2, 1),
        channels=(24, 32),
        se_ratio=(0.25, 0.0),
    )
    backbone = NetworkSpec(
        name="tiny",
        stages=(stage, replace(stage, stride=1)),
        stem_channels=8,
        head_channels=32,
        image_size=SIZE,
        train_size=SIZE,
        num_classes=10,
    )
    return SearchSpace(name="tiny", backbone=backbone, stages=(choices, replace(choices, repeats=(0, 1, 2))))


TINY = tiny_space()


@pytest.fixture(scope="module")
def costs():
    points = product(*(range(len(variable.values)) for variable in TINY.variables))
    return {point: count(TINY.spec(point), SIZE) for point in {TINY.canonical(point) for point in points}}


def domain(**bounds):
    return BoundedSpace(space=TINY, bounds=Bounds(**bounds), image_size=SIZE)


def test_the_smallest_networks_are_those_of_the_whole_space(costs):
    everything = {(measures.params, measures.macs) for measures in costs.values()}
    front = {
        (params, macs)
        for params, macs in everything
        if not any(p <= params and m <= macs and (p, m) != (params, macs) for p, m in everything)
    }
    found = [domain().counted(point) for point in domain().smallest]
    assert len(found) > 1
    assert sorted((measures.params, measures.macs) for measures in found) == sorted(front)


def test_bounds_admit_what_is_within_both(costs):
    params = sorted(measures.params for measures in costs.values())[len(costs) // 2]
    macs = sorted(measures.macs for measures in costs.values())[len(costs) // 2]
    bounded = domain(max_params=params, max_macs=macs)
    for point, measures in costs.items():
        assert bounded.is_feasible(point) == (measures.params <= params and measures.macs <= macs)
    bounded.check()


def test_where_nothing_is_feasible_there_is_no_anchor():
    assert isinstance(domain(), Anchored)
    assert domain(max_params=1).anchors == ()
    assert domain().anchors == domain().smallest


def test_a_point_that_is_none_is_not_feasible():
    assert not domain().is_feasible((99,) * len(TINY.variables))


@pytest.mark.parametrize("measure", ["params", "macs"])
def test_a_bound_that_excludes_all_is_named_with_the_smallest_value(costs, measure):
    smallest = min(getattr(measures, measure) for measures in costs.values())
    domain(**{f"max_{measure}": smallest}).check()
    message = (
        f"no network of the space tiny around tiny is within the bounds: max_{measure} is {smallest - 1:,}, "
        f"and the smallest has {smallest:,}; raise the bound, or search around a smaller backbone"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        domain(**{f"max_{measure}": smallest - 1}).check()


def test_two_bounds_that_exclude_all_are_both_named(costs):
    with pytest.raises(UserError, match=r"max_params is 1, .*; max_macs is 1, and the smallest has"):
        domain(max_params=1, max_macs=1).check()


def test_bounds_that_exclude_all_only_together_say_so():
    bounds = Bounds(max_params=10, max_step_ms=10.0)
    tried = [Measures(params=5, step_ms=20.0), Measures(params=20, step_ms=5.0)]
    message = "no candidate is within the bounds: max_params of 10 and max_step_ms of 10 exclude all together"
    with pytest.raises(UserError, match=message):
        bounds.check_some_within(tried, "candidate")
    bounds.check_some_within([*tried, Measures(params=10, step_ms=10.0)], "candidate")


def test_measured_bounds_name_the_smallest_that_was_measured():
    tried = [Measures(step_ms=31.25), Measures(step_ms=24.5), Measures()]
    bounds = Bounds(max_step_ms=20.0)
    with pytest.raises(UserError, match=r"max_step_ms is 20, and the smallest has 24\.5"):
        bounds.check_some_within(tried[:2], "candidate")
    bounds.check_some_within(tried, "candidate")


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(), None),
        (Bounds(max_params=1_000_000, max_memory_mb=100.0), None),
        (Bounds(max_params=999_999), "params is 1,000,000, over max_params of 999,999"),
        (Bounds(max_step_ms=12.0), "step_ms is 12.5, over max_step_ms of 12"),
        (Bounds(max_latency_ms=0.1), None),
    ],
)
def test_the_first_bound_that_is_exceeded_is_the_reason(bounds, reason):
    assert bounds.excess(Measures(params=1_000_000, step_ms=12.5, memory_mb=100.0)) == reason


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_no_sampled_network_is_below_the_smallest(seed):
    found = SMALL
    measures = found.counted(sample(found.space, Random(seed)))
    smallest = [found.counted(point) for point in found.smallest]
    assert any(one.params <= measures.params and one.macs <= measures.macs for one in smallest)


SMALL = BoundedSpace(space=load_space("small"), bounds=Bounds(), image_size=32)


def test_counting_is_the_accounting_of_the_network():
    spec, cost = network("v2-b0"), network_cost(network("v2-b0"), 100)
    assert count(spec, 100) == Measures(params=cost.params, macs=cost.macs)


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(UserError, match="max_params must be at least 1, got 0"):
        from_dict(Bounds, {"max_params": 0}, "bounds")
    with pytest.raises(UserError, match=r"max_step_ms must be above 0, got 0\.0"):
        from_dict(Bounds, {"max_step_ms": 0.0}, "bounds")
