"""V2's rule gives V2-S, M and L from V2-B0, and applies to any other base."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import network, network_cost
from effnet.arch.compound import Coefficients, published_coefficients
from effnet.arch.non_uniform import (
    V2_SIZES,
    NonUniformRule,
    has_exceptions,
    scale_non_uniform,
    scale_to_v2_size,
)
from effnet.errors import UserError

# fmt: off
V2 = {  # train evaluated dropout  channels                          repeats                    params
    "s": (300, 384, 0.2, (24, 48, 64, 128, 160, 256),      (2, 4, 4,  6,  9, 15),     21_458_488),
    "m": (384, 480, 0.3, (24, 48, 80, 160, 176, 304, 512), (3, 5, 5,  7, 14, 18, 5),  54_139_356),
    "l": (384, 480, 0.4, (32, 64, 96, 192, 224, 384, 640), (4, 7, 7, 10, 19, 25, 7), 118_515_272),
    "xl": (384, 512, 0.4, (32, 64, 96, 192, 256, 512, 640), (4, 8, 8, 16, 24, 32, 8), 208_119_808),
}
# fmt: on


def shape(spec):
    return tuple(stage.channels for stage in spec.stages), tuple(stage.repeats for stage in spec.stages)


@pytest.mark.parametrize("size", V2)
def test_the_base_gives_the_published_networks(size):
    train_size, image_size, dropout_rate, channels, repeats, params = V2[size]
    spec = scale_to_v2_size(network("v2-b0"), size)
    assert (spec.train_size, spec.image_size, spec.dropout_rate) == (train_size, image_size, dropout_rate)
    assert shape(spec) == (channels, repeats)
    assert (spec.stem_channels, spec.head_channels) == (channels[0], 1280)
    assert network_cost(spec).params == params
    assert spec == network(f"v2-{size}")


def test_the_rule_alone_gives_m_and_l_and_misses_s_in_two_numbers():
    base = network("v2-b0")
    for size in ("m", "l"):
        assert not has_exceptions(base, size)
        assert scale_to_v2_size(base, size, exceptions=False) == network(f"v2-{size}")
    spec = scale_to_v2_size(base, "s", exceptions=False)
    assert shape(spec) == ((24, 48, 64, 128, 160, 272), V2["s"][4])
    assert (spec.train_size, spec.image_size) == (307, 384)
    assert V2_SIZES["s"].exceptions == ["stage 6 has 256 channels", "it is trained at 300 px"]


def test_the_rule_alone_gives_the_depths_of_xl_but_for_stage_4():
    spec = scale_to_v2_size(network("v2-b0"), "xl", exceptions=False)
    assert shape(spec) == ((32, 64, 96, 192, 224, 384, 640), (4, 8, 8, 12, 24, 32, 8))
    assert spec.image_size == 480


@pytest.mark.parametrize(("phi", "size"), [(4, "s"), (5, "m"), (7, "l")])
def test_the_coefficients_of_the_sizes_are_those_of_v1(phi, size):
    by_phi = scale_non_uniform(network("v2-b0"), published_coefficients(phi))
    by_size = scale_to_v2_size(network("v2-b0"), size, exceptions=False)
    assert by_phi.stages == by_size.stages
    assert by_phi.image_size == by_size.image_size


def test_another_base_has_the_rule_and_no_exceptions():
    base = replace(network("v2-b0"), name="mine", num_classes=10)
    assert not has_exceptions(base, "s")
    spec = scale_to_v2_size(base, "s")
    assert spec.name == "mine-s"
    assert (spec.stages[5].channels, spec.train_size) == (272, 307)
    assert scale_to_v2_size(base, "m").stages == network("v2-m").stages


def test_another_rule_has_no_exceptions():
    rule = NonUniformRule(max_image_size=300)
    spec = scale_to_v2_size(network("v2-b0"), "s", rule=rule)
    assert (spec.image_size, spec.train_size, spec.stages[5].channels) == (300, 240, 272)


def test_a_stage_behind_the_last_halving_one_is_not_added_twice():
    spec = scale_non_uniform(network("v1-b0"), Coefficients(depth=2.0))
    assert [stage.repeats for stage in spec.stages] == [2, 4, 4, 6, 8, 8, 2]


def test_below_the_late_depth_no_stage_has_more_blocks():
    spec = scale_non_uniform(network("v2-b0"), Coefficients(depth=1.99))
    assert [stage.repeats for stage in spec.stages] == [2, 4, 4, 6, 10, 16]


def test_small_images_are_multiples_of_the_networks_own_stride():
    small = replace(network("v2-b0.stride8"), image_size=32, train_size=32)
    assert scale_non_uniform(small, Coefficients(resolution=1.5)).image_size == 48
    assert scale_non_uniform(small, Coefficients(resolution=1.55)).image_size == 56


@given(
    width=st.floats(0.1, 4), depth=st.floats(0.1, 5), resolution=st.floats(0.01, 9), cap=st.integers(1, 600)
)
def test_any_coefficients_give_a_network_within_the_rule(width, depth, resolution, cap):
    coefficients = Coefficients(width=width, depth=depth, resolution=resolution)
    spec = scale_non_uniform(network("v2-b0"), coefficients, rule=NonUniformRule(max_image_size=cap))
    assert 1 <= spec.train_size <= spec.image_size <= cap
    assert all(stage.channels % 16 == 0 for stage in spec.stages[1:])
    assert spec.stages[0].channels % 8 == 0
    assert len(spec.stages) == (7 if depth >= 2 else 6)


def test_mistakes():
    with pytest.raises(UserError, match=r"there is no size 'x' of V2; did you mean 'xl'\?"):
        scale_to_v2_size(network("v2-b0"), "x")
    with pytest.raises(UserError, match="no negative number of blocks, got 480, -1 and 2"):
        NonUniformRule(late_repeats=-1)
