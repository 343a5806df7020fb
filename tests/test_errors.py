"""The help that error messages give."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from effnet.config import Config
from effnet.errors import UserError, did_you_mean, explain


def test_the_nearest_option_is_suggested():
    assert did_you_mean("adamW", ["sgd", "adamw"]) == "; did you mean 'adamw'?"


def test_all_options_are_listed_when_none_is_near():
    assert did_you_mean("xyz", ["sgd", "adamw"]) == "; allowed: sgd, adamw"
    assert did_you_mean("xyz", []) == ""


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": {"epoch": 1}}, "unknown key 'train.epoch' in demo; did you mean 'train.epochs'?"),
        ({"train": {"epochs": "ten"}}, "demo: train.epochs must be a number, got 'ten'"),
        ({"train": {"batch_size": 0}}, "demo: train.batch_size must be at least 1, got 0"),
        (
            {"train": {"seed": None}, "x": 1},
            "demo: train.seed must be a whole number, got None (and 1 more problem)",
        ),
    ],
)
def test_a_validation_error_becomes_one_sentence(data, message):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Config).validate_json(json.dumps(data))
    assert explain(caught.value, Config, "demo") == message
