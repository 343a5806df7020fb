"""Compound scaling: the rounding rules, the guard that tells B3 apart, and properties of any scaling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import names, network, network_cost, round_channels, round_repeats, scale

COEFFICIENTS = st.floats(0.1, 6.0)
NETWORKS = st.sampled_from([name for name in names() if "." not in name])


def shape(spec):
    return spec.stem_channels, [(stage.channels, stage.repeats) for stage in spec.stages], spec.head_channels


@pytest.mark.parametrize(
    ("channels", "width", "guard", "expected"),
    [
        (16, 1.2, False, 16),
        (16, 1.2, True, 24),
        (16, 1.25, False, 24),
        (32, 1.1, True, 32),
        (32, 1.4, True, 48),
        (1280, 1.1, True, 1408),
        (16, 0.1, False, 8),
        (24, 1.0, True, 24),
    ],
)
def test_round_channels_golden_values(channels, width, guard, expected):
    assert round_channels(channels, width, guard=guard) == expected


@given(channels=st.integers(1, 4096), width=COEFFICIENTS)
def test_round_channels_stays_near_and_divisible(channels, width):
    plain = round_channels(channels, width, guard=False)
    guarded = round_channels(channels, width, guard=True)
    assert plain % 8 == guarded % 8 == 0
    assert plain >= 8
    assert guarded - plain in {0, 8}
    assert guarded >= 0.9 * channels * width
    assert plain == 8 or abs(plain - channels * width) <= 4 + 1e-6


@given(channels=st.integers(1, 512).map(lambda count: 8 * count), guard=st.booleans())
def test_round_channels_keeps_multiples(channels, guard):
    assert round_channels(channels, 1.0, guard=guard) == channels


@given(repeats=st.integers(1, 100), depth=COEFFICIENTS)
def test_round_repeats_rounds_up_by_less_than_one(repeats, depth):
    assert 0 <= round_repeats(repeats, depth) - repeats * depth < 1


def test_v1_b3_without_the_guard_is_the_network_of_the_v2_code():
    spec = scale(network("v1-b0"), width=1.2, depth=1.4, guard=False)
    cost = network_cost(spec, 300)
    assert spec.stages[0].channels == 16
    assert (cost.params, cost.params_with_bn_stats) == (12_227_212, 12_314_268)
    assert f"{cost.macs / 1e9:.3f}" == "1.757"


def test_v2_b3_would_change_with_the_guard():
    guarded = scale(network("v2-b0"), width=1.2, depth=1.4, guard=True)
    assert guarded.stages[0].channels == 24
    assert network("v2-b3").stages[0].channels == 16
    assert shape(scale(network("v2-b0"), width=1.2, depth=1.4)) == shape(network("v2-b3"))


def test_b3_is_the_only_v1_network_that_the_guard_changes():
    coefficients = {"b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4), "b4": (1.4, 1.8)}
    coefficients |= {"b5": (1.6, 2.2), "b6": (1.8, 2.6), "b7": (2.0, 3.1), "b8": (2.2, 3.6), "l2": (4.3, 5.3)}
    base = network("v1-b0")
    changed = [
        name
        for name, (width, depth) in coefficients.items()
        if shape(scale(base, width=width, depth=depth)) != shape(network(f"v1-{name}"))
    ]
    assert changed == ["b3"]


@given(name=NETWORKS, guard=st.booleans(), fixed_ends=st.booleans())
def test_coefficients_of_one_change_nothing(name, guard, fixed_ends):
    assert scale(network(name), guard=guard, fixed_ends=fixed_ends) == network(name)


@given(name=NETWORKS, small=COEFFICIENTS, large=COEFFICIENTS)
def test_larger_coefficients_never_give_a_cheaper_network(name, small, large):
    small, large = sorted([small, large])
    spec = network(name)
    costs = [network_cost(scale(spec, width=value, depth=value)) for value in (small, large)]
    assert costs[0].params <= costs[1].params
    assert costs[0].macs <= costs[1].macs


@given(name=NETWORKS, width=COEFFICIENTS, depth=COEFFICIENTS)
def test_fixed_ends_keep_stem_head_and_outer_repeats(name, width, depth):
    spec = network(name)
    scaled = scale(spec, width=width, depth=depth, fixed_ends=True)
    assert (scaled.stem_channels, scaled.head_channels) == (spec.stem_channels, spec.head_channels)
    for index in (0, -1):
        assert scaled.stages[index].repeats == spec.stages[index].repeats


def test_the_name_tells_the_coefficients():
    spec = network("v2-b0")
    assert scale(spec, width=0.25, depth=0.5).name == "v2-b0-width0.25-depth0.5"
    assert scale(spec, resolution=2.0).name == "v2-b0-resolution2"
    assert scale(spec, width=2.0, name="mine").name == "mine"


def test_resolution_scales_both_sizes_and_no_parameter():
    spec = scale(network("v2-b0"), resolution=1.5)
    assert (spec.train_size, spec.image_size) == (288, 336)
    assert network_cost(spec).params == network_cost(network("v2-b0")).params
