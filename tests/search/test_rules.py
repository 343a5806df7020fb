"""Rules of a space: what they make of a backbone, which of two counts, and what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effnet.arch import network, to_dict
from effnet.errors import UserError
from effnet.search.rules import SpaceRules, StageRule, apply_rules, load_space, space_names
from effnet.search.space import SearchSpace

B0 = network("v1-b0")
ROOT = Path(__file__).parents[2]


def rules(*found, **values):
    return SpaceRules(name="mine", backbone="v1-b0", rules=found, **values)


def test_a_space_without_rules_is_its_backbone_alone():
    space = apply_rules(rules(), B0)
    assert space.count() == 1
    assert space.spec(()).stages == B0.stages


def test_blocks_around_the_backbones_are_added_or_multiplied():
    added = apply_rules(rules(StageRule(more_repeats=(-1, 1))), B0)
    assert [choices.repeats for choices in added.stages][:4] == [(1, 2), (1, 2, 3), (1, 2, 3), (2, 3, 4)]
    multiplied = apply_rules(rules(StageRule(depth=(0.5, 1.5))), B0)
    assert [choices.repeats for choices in multiplied.stages][:4] == [(1, 2), (1, 2, 3), (1, 2, 3), (2, 3, 5)]


def test_widths_are_rounded_as_in_v1():
    space = apply_rules(rules(StageRule(width=(0.75, 1.25))), B0)
    assert [choices.channels for choices in space.stages][:3] == [(16, 24), (24, 32), (32, 40, 48)]


def test_the_backbones_own_values_are_always_choices():
    space = apply_rules(
        rules(StageRule(operation=("fused_mbconv",), kernel_size=(3,), expand_ratio=(4,))), B0
    )
    assert space.stages[2].operation == ("fused_mbconv", "mbconv")
    assert space.stages[2].kernel_size == (3, 5)
    assert space.stages[2].expand_ratio == (4, 6)


def test_a_later_rule_counts_for_what_it_says():
    space = apply_rules(
        rules(
            StageRule(kernel_size=(3, 5), more_repeats=(1,)),
            StageRule(stages=(2,), repeats=(1, 2), kernel_size=(3,)),
        ),
        B0,
    )
    assert space.stages[1].repeats == (1, 2)
    assert space.stages[1].kernel_size == (3,)
    assert space.stages[2].repeats == (2, 3)


def test_a_last_stage_can_be_left_out_only_where_it_does_not_shrink_the_image():
    assert apply_rules(rules(drop_last=True), B0).stages[-1].repeats == (0, 1)
    assert apply_rules(rules(drop_last=True), network("v2-b0")).stages[-1].repeats == (8,)


def test_a_rule_for_a_stage_that_is_not_there_is_refused():
    message = "^space mine: a rule is for stage 8 and v1-b0 has 7$"
    with pytest.raises(UserError, match=message):
        apply_rules(rules(StageRule(stages=(8,))), B0)


def test_bottlenecks_are_not_expanded_as_mbconv():
    with pytest.raises(
        UserError, match="space v2 expands stages as MBConv does, and stage 1 of resnet-50 has"
    ):
        load_space("v2", network("resnet-50"))
    deeper = apply_rules(rules(StageRule(more_repeats=(1,))), network("resnet-50"))
    assert deeper.stages[1].repeats == (4, 5)


def test_the_same_thing_is_said_once(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nbackbone = "v1-b0"\n[[rules]]\nwidth = [2.0]\nchannels = [8]\n')
    with pytest.raises(UserError, match="channels and width say the same thing twice; give one of them"):
        load_space(str(path))


def test_a_space_of_files_is_that_of_the_rules(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nbackbone = "v1-b0"\nwidth = 1.1\ndepth = 1.2\n[[rules]]\nkernel_size = [3, 7]\n'
    )
    space = load_space(str(path))
    assert space.backbone.stages == network("v1-b2").stages
    assert space.stages[2].kernel_size == (3, 5, 7)


def test_the_choices_of_every_stage_can_be_given(tmp_path):
    space, path = load_space("small"), tmp_path / "space.json"
    path.write_text(json.dumps(to_dict(space)))
    assert load_space(str(path)) == space
    with pytest.raises(
        UserError, match="has the choices of every stage of its own backbone; give a space of rules"
    ):
        load_space(str(path), B0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "cannot be parsed"),
        ('name = "mine"\nbackbone = "v1-b0"\nrule = []', "unknown key 'rule' in .*; did you mean 'rules'"),
        ('name = "mine"', "backbone is missing"),
        ('name = "mine"\nbackbone = "v1-b9"', "unknown network 'v1-b9'"),
        ('name = "mine"\nbackbone = "v1-b0"\n[[rules]]\nkernel_size = 3', "must be a list, got 3"),
        ('name = "mine"\nbackbone = "v1-b0"\n[[rules]]\nkernel_sizes = [3]', "did you mean"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_space(str(path))


def test_a_list_is_no_space(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text("[]")
    with pytest.raises(UserError, match="must be a table of keys and values, got a list"):
        load_space(str(path))


def test_a_space_that_is_not_there_names_the_nearest():
    with pytest.raises(UserError, match="unknown space 'smal'; did you mean 'small'"):
        load_space("smal")
    with pytest.raises(UserError, match=r"cannot read the space nowhere\.toml"):
        load_space("nowhere.toml")


def test_spaces_are_part_of_the_package():
    files = {path.stem for path in (ROOT / "src" / "effnet" / "search" / "spaces").glob("*.toml")}
    assert files == set(space_names())
    assert '"search/spaces/*.toml"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(isinstance(load_space(name), SearchSpace) for name in files)
