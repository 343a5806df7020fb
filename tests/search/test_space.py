"""Spaces: every point is a network and back, one canonical point each, and counts against enumeration."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from effnet.arch import NetworkSpec, StageSpec, from_dict, network, network_cost, to_dict
from effnet.errors import UserError
from effnet.nn.model import EfficientNet
from effnet.search.moves import crossover, mutate, neighbours, sample
from effnet.search.rules import load_space, space_names
from effnet.search.space import FIELDS, SearchSpace, StageChoices, spec_hash, spec_text

_MBCONV = StageSpec(
    operation="mbconv", kernel_size=3, stride=1, expand_ratio=4, channels=16, repeats=1, se_ratio=0.25
)
BACKBONE = NetworkSpec(
    name="tiny",
    stages=(
        StageSpec(operation="conv", kernel_size=3, stride=1, expand_ratio=1, channels=8, repeats=1),
        replace(_MBCONV, stride=2, repeats=2),
        _MBCONV,
    ),
    stem_channels=8,
    head_channels=32,
    image_size=32,
    train_size=32,
    num_classes=10,
)

TINY = SearchSpace(
    name="tiny",
    backbone=BACKBONE,
    stages=(
        StageChoices(
            operation=("conv", "mbconv"),
            kernel_size=(3,),
            expand_ratio=(1, 4),
            repeats=(1,),
            channels=(8, 16),
            se_ratio=(0.0, 0.25),
            residual=(False, True),
        ),
        StageChoices(
            operation=("mbconv", "fused_mbconv"),
            kernel_size=(3, 5),
            expand_ratio=(4,),
            repeats=(1, 2),
            channels=(16,),
            se_ratio=(0.0, 0.25),
            residual=(True, False),
        ),
        StageChoices(
            operation=("mbconv",),
            kernel_size=(3,),
            expand_ratio=(4,),
            repeats=(0, 1),
            channels=(16, 24),
            se_ratio=(0.25,),
        ),
    ),
)

SPACES = {name: load_space(name) for name in space_names()} | {"tiny": TINY}
NAMES = st.sampled_from(sorted(SPACES))


def points(name):
    return st.tuples(*(st.integers(0, len(variable.values) - 1) for variable in SPACES[name].variables))


def every_point(space):
    return product(*(range(len(variable.values)) for variable in space.variables))


def test_the_shipped_spaces_are_those_of_the_papers_and_a_small_one():
    assert space_names() == ["small", "v1", "v2"]


@pytest.mark.parametrize("seed", range(3))
def test_a_sampled_network_can_be_built(seed):
    spec = SPACES["small"].spec(sample(SPACES["small"], Random(seed)))
    with torch.device("meta"):
        model = EfficientNet(spec)
    assert sum(values.numel() for values in model.parameters()) == network_cost(spec).params


@settings(max_examples=50)
@given(st.data())
def test_a_network_gives_back_its_canonical_point(data):
    name = data.draw(NAMES)
    space, point = SPACES[name], data.draw(points(name))
    spec = space.spec(point)
    assert space.point(spec) == space.canonical(point)
    assert space.spec(space.canonical(point)) == spec


@given(st.data())
def test_canonical_points_stay_as_they_are(data):
    name = data.draw(NAMES)
    canonical = SPACES[name].canonical(data.draw(points(name)))
    assert SPACES[name].canonical(canonical) == canonical
    assert SPACES[name].is_feasible(canonical)


@settings(max_examples=50)
@given(st.data())
def test_a_canonical_point_depends_on_nothing_but_the_blocks(data):
    name = data.draw(NAMES)
    space, point = SPACES[name], data.draw(points(name))
    other = list(point)
    place = data.draw(st.integers(0, len(point) - 1))
    other[place] = data.draw(st.integers(0, len(space.variables[place].values) - 1))
    same = list(space.spec(point).blocks()) == list(space.spec(tuple(other)).blocks())
    assert same == (space.canonical(point) == space.canonical(tuple(other)))
    assert same == (space.hash(point) == space.hash(tuple(other)))
    assert same == (space.text(point) == space.text(tuple(other)))


def test_the_points_of_a_tiny_space_are_its_networks_each_once():
    canonical = {TINY.canonical(point) for point in every_point(TINY)}
    networks = {TINY.spec(point) for point in canonical}
    blocks = {tuple(spec.blocks()) for spec in networks}
    assert len(canonical) == len(networks) == len(blocks) == TINY.count()


def test_the_size_of_a_space_is_counted_by_hand():
    # Stage 1: a conv of 2 widths, an MBConv of 2 widths x 2 expansions x 2 squeezes; where it keeps the 8
    # channels, with or without skip: (1 + 4) x 2 + (1 + 4) = 15. Stage 2: MBConv 2 kernels x 2 squeezes and
    # Fused-MBConv 2 kernels, with one block (no skip) or two: 6 + 6 x 2 = 18. Stage 3: left out, or 2 widths.
    assert TINY.count() == 15 * 18 * 3


def test_the_space_of_v2_around_b4_has_the_size_of_its_product():
    # Kernel x expansion x operation is 12 a stage; the blocks of B4 (2 4 4 6 6 8 2) at half to twice have
    # 4 or 5 values, and the last stage may be left out.
    values = [4, 5, 5, 5, 5, 5]
    expected = 4 * 12 + 1
    for number in values:
        expected *= 12 * number
    assert SPACES["v2"].count() == expected


def test_the_space_of_v2_holds_the_published_v2_pattern():
    space = load_space("v2", network("v2-s"))
    assert space.spec(space.point(network("v2-s"))).stages == network("v2-s").stages


@pytest.mark.parametrize(
    "name",
    [
        *("v1-b0", "v1-b4", "v1-b7", "v2-s", "v2-xl", "v2-b0.stride8", "v1-b4.fused1-3"),
        "mobilenet-v2",
    ],
)
@pytest.mark.parametrize("space", ["v1", "v2", "small"])
def test_a_backbone_of_any_size_is_in_its_own_space(name, space):
    found = load_space(space, network(name))
    assert found.spec(found.point(network(name))).stages == network(name).stages


def test_a_residual_that_makes_no_difference_is_not_kept_from_the_backbone():
    spec = network("mobilenet-v1")
    space = load_space("v2", spec)
    found = space.spec(space.point(spec))
    assert list(found.blocks()) == list(spec.blocks())
    assert [stage.residual for stage in found.stages] == [True, False, False, False, False]


def test_bottlenecks_and_separable_stages_can_be_chosen():
    choices = StageChoices(
        operation=("separable", "mbconv", "bottleneck"),
        kernel_size=(3, 5),
        expand_ratio=(1, 4),
        repeats=(1,),
        channels=(16,),
        se_ratio=(0.0, 0.25),
        residual=(True, False),
    )
    stage = replace(_MBCONV, stride=2, operation="bottleneck", se_ratio=0.0)
    backbone = replace(BACKBONE, stages=(stage,), stem_pooling=True, stem_kernel_size=7)
    space = SearchSpace(name="classic", backbone=backbone, stages=(choices,))
    found = [replace(space.spec(point), name="same") for point in every_point(space)]
    # Of each kernel: one separable, MBConv by expansion and gate, bottlenecks by expansion and shortcut.
    assert space.count() == len(set(found)) == 2 * (1 + 2 * 2 + 2 * 2)
    assert space.spec(space.point(backbone)).stages == backbone.stages
    with pytest.raises(UserError, match="stem_kernel_size is 3, and the backbone's 7"):
        space.point(replace(backbone, stem_kernel_size=3))
    with pytest.raises(ValidationError, match="multiples of each expand_ratio, got 18 and 4"):
        replace(choices, channels=(16, 18))


def test_variables_are_named_as_the_papers_count_stages():
    names = [variable.name for variable in TINY.variables]
    assert names[:4] == ["stage1.operation", "stage1.expand_ratio", "stage1.channels", "stage1.se_ratio"]
    assert names[-2:] == ["stage3.repeats", "stage3.channels"]
    assert all(len(variable.values) > 1 for variable in TINY.variables)


def test_a_network_is_named_by_its_space_and_what_it_is():
    spec = TINY.spec(TINY.point(BACKBONE))
    assert spec.name == f"tiny-{spec_hash(BACKBONE)[:8]}"
    assert spec_hash(spec) == spec_hash(BACKBONE)
    assert spec_hash(replace(spec, head_channels=40)) != spec_hash(spec)


def test_the_text_of_a_network_is_the_released_block_strings():
    assert spec_text(replace(BACKBONE, stages=BACKBONE.stages[:2])) == (
        "conv_r1_k3_s1_e1_i8_o8 mbconv_r2_k3_s2_e4_i8_o16_se0.25"
    )
    bare = replace(BACKBONE.stages[0], residual=False)
    assert spec_text(replace(BACKBONE, stages=(bare,))) == "conv_r1_k3_s1_e1_i8_o8_noskip"


def test_a_left_out_last_stage_leaves_the_head_where_it_was():
    point = TINY.point(replace(BACKBONE, stages=BACKBONE.stages[:2]))
    spec = TINY.spec(point)
    assert len(spec.stages) == 2
    assert spec.head_channels == BACKBONE.head_channels


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(BACKBONE, head_channels=64), "head_channels is 64, and the backbone's 32"),
        (replace(BACKBONE, stages=BACKBONE.stages[:1]), "it has 1 stages, and the backbone 3"),
        (
            replace(BACKBONE, stages=(replace(BACKBONE.stages[0], stride=2), *BACKBONE.stages[1:])),
            "stage 1 has a stride of 2, the backbone 1",
        ),
        (
            replace(BACKBONE, stages=(*BACKBONE.stages[:2], replace(BACKBONE.stages[2], channels=40))),
            "channels of stage 3 is 40, and may be 16, 24",
        ),
        (
            replace(
                BACKBONE,
                stages=(
                    BACKBONE.stages[0],
                    replace(BACKBONE.stages[1], operation="fused_mbconv"),
                    BACKBONE.stages[2],
                ),
            ),
            "stage 2 has squeeze-and-excitation and is no mbconv",
        ),
    ],
)
def test_a_network_of_another_space_is_refused_by_the_first_difference(spec, message):
    with pytest.raises(UserError, match=f"^tiny is not in the space tiny: {message}$"):
        TINY.point(spec)


def test_an_index_out_of_range_is_no_point():
    point = TINY.point(BACKBONE)
    assert not TINY.is_feasible((9, *point[1:]))
    assert not TINY.is_feasible(point[1:])
    with pytest.raises(ValueError, match="is no point of the space tiny"):
        TINY.spec((9, *point[1:]))


@pytest.mark.parametrize("name", sorted(SPACES))
def test_a_space_is_plain_data_and_back(name):
    space = SPACES[name]
    assert space.variables
    assert from_dict(SearchSpace, to_dict(space), "space") == space


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": (0, 1)}, "repeats of stage 1 must be at least 1"),
        ({"kernel_size": (3, 4)}, "kernel_size must be odd, got 4"),
        ({"kernel_size": (3, 3)}, r"kernel_size must have each value once, got \[3, 3\]"),
        ({"kernel_size": ()}, "must be a list of 1 or more values"),
        ({"operation": ("mbcon",)}, "must be one of .*got 'mbcon'; did you mean 'mbconv'?"),
    ],
)
def test_choices_that_make_no_network_are_refused(change, message):
    data = to_dict(TINY)
    data["stages"][0] |= change
    with pytest.raises(UserError, match=message):
        from_dict(SearchSpace, data, "space.json")


def test_a_space_has_as_many_stages_as_its_backbone():
    data = to_dict(TINY)
    del data["stages"][1]
    with pytest.raises(UserError, match="stages must be as many as the backbone's 3, got 2"):
        from_dict(SearchSpace, data, "space.json")


@settings(max_examples=50)
@given(st.data(), st.integers(0, 2**32))
def test_moves_stay_canonical_and_depend_on_their_draws_alone(data, seed):
    name = data.draw(NAMES)
    space = SPACES[name]
    first, second = (data.draw(points(name)) for _ in range(2))
    moves = (
        lambda: sample(space, Random(seed)),
        lambda: mutate(space, first, Random(seed)),
        lambda: crossover(space, first, second, Random(seed)),
    )
    for move in moves:
        found = move()
        assert space.canonical(found) == found
        assert space.is_feasible(found)
        assert move() == found


@given(st.data(), st.integers(0, 2**32))
@settings(max_examples=50)
def test_a_mutation_is_one_of_the_neighbours(data, seed):
    name = data.draw(NAMES)
    space, point = SPACES[name], data.draw(points(name))
    found = neighbours(space, point)
    assert mutate(space, point, Random(seed)) in found
    assert space.canonical(point) not in found
    assert len(set(found)) == len(found)


@given(st.data(), st.integers(0, 2**32))
def test_a_child_has_every_value_from_a_parent(data, seed):
    space = SPACES["small"]
    first, second = (sample(space, Random(data.draw(st.integers(0, 99)))) for _ in range(2))
    child = crossover(space, first, second, Random(seed))
    assert all(value in pair for value, *pair in zip(child, first, second, strict=True))


def test_every_network_is_within_reach_by_mutation():
    one = replace(BACKBONE, stages=BACKBONE.stages[1:])
    space = SearchSpace(name="two", backbone=one, stages=TINY.stages[1:])
    found = {space.point(one)}
    frontier = list(found)
    while frontier:
        frontier = [new for point in frontier for new in neighbours(space, point) if new not in found]
        frontier = list(dict.fromkeys(frontier))
        found |= set(frontier)
    assert len(found) == space.count() == 18 * 3


def test_a_space_of_one_network_has_no_neighbours():
    only = StageChoices(**{field: (getattr(BACKBONE.stages[0], field),) for field in FIELDS})
    space = SearchSpace(name="one", backbone=replace(BACKBONE, stages=BACKBONE.stages[:1]), stages=(only,))
    assert space.variables == ()
    assert space.count() == 1
    assert neighbours(space, ()) == ()
    assert mutate(space, (), Random(0)) == sample(space, Random(0)) == ()


def test_sampling_reaches_every_value_of_every_variable():
    drawn = [sample(TINY, Random(seed)) for seed in range(300)]
    for place, variable in enumerate(TINY.variables):
        assert {point[place] for point in drawn} == set(range(len(variable.values)))
