"""Constants to try: by what their networks truly cost, each network once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effnet.arch import network, network_cost, scale
from effnet.arch.compound import Compound, scale_by
from effnet.errors import UserError
from effnet.search.grid import grid_points, spread_points

BASE = replace(
    scale(network("v2-b0.stride8"), width=0.25, depth=0.35), name="small", image_size=32, train_size=32
)


@pytest.fixture(scope="module")
def points():
    return grid_points(BASE, step=0.1)


def test_every_network_costs_about_twice_the_base_and_is_there_once(points):
    macs = network_cost(BASE).macs
    for point in points:
        assert point.spec == scale_by(BASE, point.compound.at(1))
        assert network_cost(point.spec).macs / macs == point.macs_ratio
        assert 1.8 <= point.macs_ratio <= 2.2
    assert len({replace(point.spec, name="-") for point in points}) == len(points) > 4


def test_the_papers_constants_are_of_another_cost_than_the_formula_says():
    base = network("v1-b0")
    scaled = scale_by(base, Compound().at(1))
    assert Compound().growth == pytest.approx(1.92, abs=0.005)
    assert network_cost(scaled, 256).macs / network_cost(base, 224).macs > 2.2


def test_the_first_is_the_nearest_to_the_papers_and_the_others_spread(points):
    chosen = spread_points(points, 6)
    assert chosen[0] == points[0]
    for axis in ("alpha", "beta", "gamma"):
        farthest = max(getattr(point.compound, axis) for point in points)
        assert max(getattr(point.compound, axis) for point in chosen) > 0.85 * farthest
    assert spread_points(points, 10_000)[:6] == chosen
    assert len(spread_points(points, 10_000)) == len(points)


def test_mistakes():
    with pytest.raises(UserError, match=r"a factor between 1 and 8 .* got 0\.05, 1 and 0\.1"):
        grid_points(BASE, factor=1.0)
    with pytest.raises(UserError, match=r"costs 2 times small, within 0%; the nearest costs"):
        grid_points(BASE, step=0.4, tolerance=1e-4)
