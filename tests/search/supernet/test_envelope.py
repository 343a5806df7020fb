"""What a space needs room for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest

from effnet.arch import NetworkSpec
from effnet.errors import UserError
from effnet.search.points import Point, Variable
from effnet.search.rules import load_space
from effnet.search.supernet.envelope import Branch, corners, envelope_of
from effnet.search.supernet.sandwich import random_point


def test_an_envelope_has_the_largest_of_everything_and_every_branch(space):
    envelope = envelope_of(space)
    assert [[Branch.of(form).name for form in forms] for forms in envelope.forms] == [
        ["fused_mbconv_plain", "fused_mbconv", "mbconv_plain", "mbconv"],
        ["mbconv"],
    ]
    first, second = envelope.largest.stages
    assert (first.kernel_size, first.expand_ratio, first.channels, first.repeats) == (5, 3, 12, 2)
    assert (second.kernel_size, second.expand_ratio, second.channels, second.repeats) == (5, 3, 8, 2)
    assert envelope.depths == (1, 2)
    ratios = {Branch.of(form).name: (form.expand_ratio, form.se_ratio) for form in envelope.forms[0]}
    assert ratios == {
        "fused_mbconv_plain": (1, 0.0),
        "fused_mbconv": (3, 0.0),
        "mbconv_plain": (1, 0.25),
        "mbconv": (3, 0.25),
    }


def test_the_largest_block_of_each_branch_has_the_largest_input(space):
    blocks = list(envelope_of(space).blocks(0))
    assert [block["mbconv"].in_channels for block in blocks] == [8, 12]
    assert [block["mbconv"].hidden_channels for block in blocks] == [24, 36]
    assert [block["mbconv_plain"].hidden_channels for block in blocks] == [8, 12]
    assert [block["mbconv"].se_channels for block in blocks] == [2, 3]


@pytest.mark.parametrize("name", ["small", "v1", "v2"])
def test_every_network_of_a_shipped_space_is_inside(name):
    space, draws = load_space(name), Random(0)
    envelope = envelope_of(space)
    for _ in range(20):
        spec = space.spec(random_point(space, draws))
        assert len(spec.stages) in envelope.depths
        for stage, largest, forms in zip(spec.stages, envelope.largest.stages, envelope.forms, strict=False):
            assert Branch.of(stage) in map(Branch.of, forms)
            for field in ("kernel_size", "expand_ratio", "channels", "repeats"):
                assert getattr(stage, field) <= getattr(largest, field)


def test_corners_have_all_pairs_of_values_within_a_stage():
    variables = [Variable("stage1.a", (1, 2)), Variable("stage1.b", (1, 2, 3)), Variable("stage2.a", (1, 2))]
    points = corners(variables)
    assert {point[:2] for point in points} == {(a, b) for a in range(2) for b in range(3)}
    assert {point[2] for point in points} == {0, 1}
    assert len(points) == 6 + 1


def test_constants_are_those_of_the_training_and_stages_those_of_the_space(space):
    envelope = envelope_of(space)
    other = replace(space.backbone, num_classes=7, padding="symmetric", norm_epsilon=1e-5)
    changed = envelope.with_constants(other)
    assert (changed.largest.num_classes, changed.largest.padding) == (7, "symmetric")
    assert changed.largest.norm_epsilon == 1e-5
    assert changed.largest.stages == envelope.largest.stages


@dataclass(frozen=True)
class TwoStems:
    """A domain whose networks differ in their stems."""

    spec_of_first: NetworkSpec

    @property
    def variables(self) -> tuple[Variable, ...]:
        return (Variable("stem", (8, 16)),)

    def canonical(self, point: Point) -> Point:
        return point

    def is_feasible(self, point: Point) -> bool:
        return True

    def spec(self, point: Point) -> NetworkSpec:
        return replace(self.spec_of_first, stem_channels=self.variables[0].values[point[0]])


@dataclass(frozen=True)
class OneStem(TwoStems):
    """A domain of one network."""

    @property
    def variables(self) -> tuple[Variable, ...]:
        return (Variable("stem", (8,)),)


def test_networks_with_different_stems_share_nothing(space):
    with pytest.raises(UserError) as caught:
        envelope_of(TwoStems(space.backbone))
    assert str(caught.value) == (
        "networks of the space differ in stem, head, strides, activation or padding (tiny, tiny), which a "
        "supernet cannot share; search that space without one"
    )


def test_bottlenecks_are_refused(space):
    changed = replace(space.backbone.stages[0], operation="bottleneck")
    with pytest.raises(UserError) as caught:
        envelope_of(OneStem(replace(space.backbone, stages=(changed,))))
    assert str(caught.value) == "a supernet has no bottleneck stages; search that space without one"
