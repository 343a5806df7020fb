"""Specs refuse what cannot be built, and derive what blocks need."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
from pydantic import ValidationError

from effnet.arch import Preprocessing, network


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"operation": "conv", "expand_ratio": 4}, "expand_ratio must be 1 and se_ratio 0, got 4 and 0.0"),
        ({"channels": 0}, "greater than or equal to 1"),
        ({"se_ratio": 1.5}, "less than or equal to 1"),
        ({"operation": "mbconv3"}, "'conv', 'mbconv', 'fused_mbconv', 'separable' or 'bottleneck'"),
        ({"operation": "separable"}, "a separable stage .* expand_ratio must be 1 and se_ratio 0, got 4"),
        ({"operation": "bottleneck", "channels": 30}, "se_ratio 0.0, 30 channels and expand_ratio 4"),
        ({"operation": "bottleneck", "se_ratio": 0.25}, "no squeeze-and-excitation .* got se_ratio 0.25, 32"),
        ({"repeats": 2.0}, "valid integer"),
    ],
)
def test_an_impossible_stage_is_refused(changes, message):
    stage = network("v2-b0").stages[1]
    with pytest.raises(ValidationError, match=message):
        replace(stage, **changes)


@pytest.mark.parametrize(
    "changes",
    [{"stages": ()}, {"dropout_rate": 1.0}, {"norm_epsilon": 0.0}, {"name": ""}, {"stem_kernel_size": 4}],
)
def test_an_impossible_network_is_refused(changes):
    with pytest.raises(ValidationError, match=next(iter(changes))):
        replace(network("v2-b0"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "one value a channel, got 1 and 3"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be above 0"),
        ({"crop_fraction": 0.0}, "greater than 0"),
    ],
)
def test_an_impossible_preprocessing_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Preprocessing(image_size=224, **changes)


def test_specs_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        network("v2-b0").image_size = 1


def test_blocks_chain_and_only_the_first_of_a_stage_strides():
    spec = network("v2-s")
    blocks = list(spec.blocks())
    assert blocks[0].in_channels == spec.stem_channels
    assert [block.index for block in blocks] == list(range(spec.num_blocks))
    for before, block in pairwise(blocks):
        assert block.in_channels == before.out_channels
        assert block.position == 0 or (block.stage, block.stride) == (before.stage, 1)


def test_squeeze_is_a_quarter_of_the_block_input_not_of_its_hidden_width():
    first = next(block for block in network("v2-s").blocks() if block.se_channels)
    assert (first.in_channels, first.hidden_channels, first.se_channels) == (64, 256, 16)


def test_shortcuts_need_equal_shapes_and_can_be_switched_off():
    spec = network("v1-b0")
    with_shortcut = [block.index for block in spec.blocks() if block.has_residual]
    assert with_shortcut == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    assert not any(block.has_residual for block in spec.with_stages(residual=False).blocks())
