"""One phi for three axes: as published for V1, by the formula, and along a single axis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effnet.arch import network, network_cost
from effnet.arch.compound import (
    DOUBLING,
    Coefficients,
    Compound,
    published_coefficients,
    scale_by,
    under_published_name,
)
from effnet.errors import UserError

# fmt: off
V1 = {  # size dropout stem  channels                          repeats                 head   params     macs
    1: (240, 0.2, 32, (16, 24, 40,  80, 112, 192, 320), (2, 3, 3, 4,  4,  5, 2), 1280,  7_794_184,  0.687),
    2: (260, 0.3, 32, (16, 24, 48,  88, 120, 208, 352), (2, 3, 3, 4,  4,  5, 2), 1408,  9_109_994,  0.994),
    3: (300, 0.3, 40, (24, 32, 48,  96, 136, 232, 384), (2, 3, 3, 5,  5,  6, 2), 1536, 12_233_232,  1.827),
    4: (380, 0.4, 48, (24, 32, 56, 112, 160, 272, 448), (2, 4, 4, 6,  6,  8, 2), 1792, 19_341_616,  4.39),
    5: (456, 0.4, 48, (24, 40, 64, 128, 176, 304, 512), (3, 5, 5, 7,  7,  9, 3), 2048, 30_389_784, 10.27),
    6: (528, 0.5, 56, (32, 40, 72, 144, 200, 344, 576), (3, 6, 6, 8,  8, 11, 3), 2304, 43_040_704, 19.07),
    7: (600, 0.5, 64, (32, 48, 80, 160, 224, 384, 640), (4, 7, 7, 10, 10, 13, 4), 2560, 66_347_960, 37.75),
}
# fmt: on


@pytest.mark.parametrize("phi", V1)
def test_phi_gives_the_published_networks_of_v1(phi):
    size, dropout_rate, stem, channels, repeats, head, params, macs = V1[phi]
    spec = scale_by(network("v1-b0"), published_coefficients(phi))
    assert spec.name == f"v1-b{phi}"
    assert (spec.image_size, spec.train_size, spec.dropout_rate) == (size, size, dropout_rate)
    assert (spec.stem_channels, spec.head_channels) == (stem, head)
    assert tuple(stage.channels for stage in spec.stages) == channels
    assert tuple(stage.repeats for stage in spec.stages) == repeats
    cost = network_cost(spec)
    assert cost.params == params
    assert cost.macs / 1e9 == pytest.approx(macs, abs=0.006)


def test_the_base_is_phi_0_and_b8_is_phi_8():
    base = network("v1-b0")
    assert scale_by(base, published_coefficients(0)) == base
    assert scale_by(base, published_coefficients(8)) == network("v1-b8")


def test_only_v1_has_the_guard_unless_it_is_asked_for():
    b3 = published_coefficients(3)
    assert scale_by(network("v2-b0"), b3).stages == network("v2-b3").stages
    assert scale_by(network("v2-b0"), b3, guard=True).stages != network("v2-b3").stages
    assert scale_by(network("v1-b0"), b3, guard=False).stages[0].channels == 16
    assert scale_by(replace(network("v1-b0"), name="mine"), b3).stages == network("v1-b3").stages


def test_the_formula_is_powers_and_its_defaults_are_the_papers():
    assert Compound().growth == pytest.approx(1.92, abs=0.005)
    found = Compound(alpha=1.4, beta=1.05, gamma=1.1).at(2)
    assert (found.depth, found.width, found.resolution) == pytest.approx((1.96, 1.1025, 1.21))
    assert found.dropout_rate is None


def test_no_phi_of_the_formula_is_what_was_published():
    """B4's coefficients are the formula's at 3.2, 3.5 and 3.8."""
    published = published_coefficients(4)
    for axis, phi in (("depth", 3.22), ("width", 3.53), ("resolution", 3.78)):
        assert getattr(Compound().at(phi), axis) == pytest.approx(getattr(published, axis), rel=2e-3)


@pytest.mark.parametrize("axis", DOUBLING)
def test_a_step_along_one_axis_about_doubles_the_multiply_adds_and_leaves_the_others(axis):
    base = network("v2-b0")
    spec = scale_by(base, DOUBLING[axis].at(1))
    assert network_cost(spec).macs / network_cost(base).macs == pytest.approx(2, rel=0.12)
    is_deeper, is_wider, is_larger = (
        spec.num_blocks != base.num_blocks,
        spec.stem_channels != base.stem_channels,
        spec.image_size != base.image_size,
    )
    assert (is_deeper, is_wider, is_larger) == (axis == "depth", axis == "width", axis == "resolution")


@pytest.mark.parametrize("phi", [-2.5, 0, 1.5])
def test_dropout_of_the_base_stays_unless_coefficients_have_one(phi):
    base = replace(network("v2-b0"), dropout_rate=0.35)
    assert scale_by(base, Compound().at(phi)).dropout_rate == 0.35
    assert scale_by(base, published_coefficients(5)).dropout_rate == 0.4


def test_what_equals_a_published_network_has_its_name():
    assert under_published_name(replace(network("v2-s"), name="mine")) == network("v2-s")
    other = replace(network("v2-s"), name="mine", num_classes=10)
    assert under_published_name(other) == other


@pytest.mark.parametrize("phi", [2.5, -1, 9])
def test_other_phis_were_not_published(phi):
    with pytest.raises(UserError, match=rf"phi = 0 to 8 \(B0 to B8 of V1\), got {phi}; give --alpha 1.2"):
        published_coefficients(phi)


def test_constants_and_coefficients_out_of_range_are_refused():
    with pytest.raises(UserError, match=r"beta must be at least 1 \(equation 3\), got 0.9"):
        Compound(beta=0.9)
    with pytest.raises(UserError, match="are all 1, so that no phi changes anything"):
        Compound(alpha=1, beta=1, gamma=1)
    with pytest.raises(UserError, match="width multiplies a network, so it must be above 0, got -2"):
        Coefficients(width=-2)
