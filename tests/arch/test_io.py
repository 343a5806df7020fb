"""Specs survive JSON, and wrong JSON is explained."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import (
    NetworkSpec,
    Preprocessing,
    from_dict,
    load_spec,
    names,
    network,
    released_preprocessing,
    scale,
    spec_from_json,
    spec_to_json,
    to_dict,
)
from effnet.errors import UserError


@pytest.mark.parametrize("name", [*names(), "v1-b4.fused1-3"])
def test_every_network_survives_json(name):
    assert spec_from_json(spec_to_json(network(name)), "test") == network(name)


@given(
    width=st.floats(0.1, 4.0),
    depth=st.floats(0.1, 4.0),
    name=st.text(min_size=1).filter(lambda text: text.isprintable()),
    epsilon=st.floats(1e-9, 1.0),
)
def test_any_scaled_network_survives_json(width, depth, name, epsilon):
    spec = replace(scale(network("v2-b0"), width=width, depth=depth, name=name), norm_epsilon=epsilon)
    assert spec_from_json(spec_to_json(spec), "test") == spec


def test_networks_without_what_came_later_are_written_as_before():
    written = "".join(spec_to_json(network(name)) for name in names() if name[0] == "v")
    digest = "38f629ceef4acfb285729df6c17867b97f8a7d83487b2e34600d924ba697c7ff"
    assert hashlib.sha256(written.encode()).hexdigest() == digest
    assert not re.search("stem_kernel_size|stem_pooling", written)


def test_json_has_one_stage_a_line():
    lines = spec_to_json(network("v2-s")).splitlines()
    assert sum('"operation"' in line for line in lines) == 6
    assert lines[:2] == ["{", '  "name": "v2-s",']


@pytest.mark.parametrize("name", ["v1-b0", "v2-s"])
def test_dictionaries_hold_nothing_that_json_cannot(name):
    for value in (network(name), released_preprocessing(network(name))):
        data = to_dict(value)
        assert json.loads(json.dumps(data)) == data
        assert from_dict(type(value), data, "test") == value


def test_keys_left_out_take_their_defaults():
    assert from_dict(Preprocessing, {"image_size": 32}, "test") == Preprocessing(image_size=32)


def test_load_spec_takes_names_and_paths(tmp_path):
    path = tmp_path / "mine.json"
    spec = scale(network("v2-b0"), width=0.5)
    path.write_text(spec_to_json(spec))
    assert load_spec(str(path)) == spec
    assert load_spec("v1-b4.fused1-3") == network("v1-b4.fused1-3")


def test_load_spec_of_an_unknown_name_suggests_one():
    with pytest.raises(UserError, match=r"unknown network 'v2-z'; did you mean .* \.json file"):
        load_spec("v2-z")


def test_load_spec_of_a_missing_file_names_it(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the network .*gone\.json"):
        load_spec(str(tmp_path / "gone.json"))


def test_load_spec_of_bytes_that_are_no_text_names_the_file(tmp_path):
    path = tmp_path / "weights.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read the network .*weights\.json"):
        load_spec(str(path))


def test_text_that_is_not_json_says_where():
    with pytest.raises(UserError, match=r"mine\.json is not JSON: .*line 2"):
        spec_from_json("{\n oops", "mine.json")


def edited(**stage_changes):
    data = to_dict(network("v2-b0"))
    data["stages"][2] |= stage_changes
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (edited(kernel_size=4), "mine.json: in stages[2], kernel_size must be odd, got 4"),
        (
            edited(kernl_size=3),
            "unknown key 'stages[2].kernl_size' in mine.json; did you mean 'stages[2].kernel_size'?",
        ),
        (edited(channels=0), "mine.json: stages[2].channels must be at least 1, got 0"),
        (
            edited(operation="mbconf"),
            "mine.json: stages[2].operation must be one of conv, mbconv, fused_mbconv, separable, "
            "bottleneck, got 'mbconf'; did you mean 'mbconv'?",
        ),
        (
            edited(channels=None, repeats="x"),
            "mine.json: stages[2].channels must be a whole number, got None (and 1 more problem)",
        ),
        ({"name": "x"}, "mine.json: stages is missing (and 4 more problems)"),
        (edited() | {"stages": []}, "mine.json: stages must be a list of 1 or more values, got []"),
        (edited() | {"name": ""}, "mine.json: name must be text of 1 or more characters, got ''"),
        ([1, 2], "mine.json must be a section of keys and values, got [1, 2]"),
    ],
)
def test_a_wrong_spec_is_explained(data, message):
    with pytest.raises(UserError) as caught:
        from_dict(NetworkSpec, data, "mine.json")
    assert str(caught.value) == message
