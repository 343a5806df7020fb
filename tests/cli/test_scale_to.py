"""``effnet scale --to``: a budget for a cost."""

from __future__ import annotations

import json

import pytest

from effnet.arch import load_spec, network_cost
from effnet.cli.scale_to import parse_target


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("macs=1.5G", 1.5e9),
        ("params=10M", 1e7),
        ("step_ms=300", 300),
        ("latency_ms=4e1", 40),
        ("macs=2k", 2e3),
    ],
)
def test_budgets_have_units(text, budget):
    target = parse_target(text)
    assert target.kind == text.partition("=")[0]
    assert target.budget == pytest.approx(budget)


def test_compound_scaling_to_a_number_of_multiply_adds(effnet):
    answer = effnet("scale", "v1-b0", "--to", "macs=1G", "--json")
    (found,) = json.loads(answer.out)["networks"]
    cost = network_cost(load_spec(found["file"]))
    assert 0.98e9 < cost.macs == found["macs"] <= 1e9
    assert found["name"] == "v1-b0-macs1G"
    assert found["coefficients"]["depth"] == pytest.approx(1.207, abs=0.01)


@pytest.mark.parametrize(
    ("options", "coefficients"),
    [
        (["--axis", "width"], {"depth": 1, "resolution": 1}),
        (["--axis", "depth"], {"width": 1, "resolution": 1}),
        (["--alpha", "1", "--beta", "1"], {"width": 1, "depth": 1}),
    ],
)
def test_single_axes_reach_the_same_cost(effnet, options, coefficients):
    answer = effnet("scale", "v1-b0", "--to", "macs=1.6G", *options, "--json")
    (found,) = json.loads(answer.out)["networks"]
    assert 1.5e9 < found["macs"] <= 1.6e9
    for axis, value in coefficients.items():
        assert found["coefficients"][axis] == value


def test_the_non_uniform_rule_is_carried_to_a_budget(effnet):
    answer = effnet("scale", "v2-b0", "--to", "params=54M", "--non-uniform", "--out", "found.json")
    assert answer.code == 0, answer.err
    spec = load_spec("found.json")
    assert 51e6 < network_cost(spec).params <= 54e6
    assert (len(spec.stages), spec.image_size) == (7, 448)


def test_measured_costs_are_of_this_device(effnet, workspace, monkeypatch):
    asked = []

    class Cost:
        def __init__(self, config, reference, kind):
            asked.append((config.train.batch_size, reference.name, kind))

        def __call__(self, spec):
            return network_cost(spec).macs / 1e5

    monkeypatch.setattr("effnet.search.device_cost.DeviceCost", Cost)
    options = ["--to", "step_ms=3", "--set", "train.batch_size=8", "--out", "found.json"]
    answer = effnet("scale", workspace / "tiny.json", *options)
    assert answer.code == 0, answer.err
    assert asked == [(8, "tiny", "step_ms")]
    assert "2 blocks, 0.02 M parameters, 16 px" in answer.err
    assert network_cost(load_spec("found.json")).macs <= 3e5


def test_mistakes(mistake):
    assert "no cost 'mac' to scale to; did you mean 'macs'?" in mistake("scale", "v1-b0", "--to", "mac=1")
    for amount in ("", "0", "1T", "many", "1.2.3"):
        assert f"got '{amount}'" in mistake("scale", "v1-b0", "--to", f"macs={amount}")
    assert "no axis 'hight'" in mistake("scale", "v1-b0", "--to", "macs=1G", "--axis", "hight")
    assert "give --to, or --width with a factor" in mistake("scale", "v1-b0", "--phi", "1", "--axis", "width")
    assert "scale all axes, --axis one" in mistake(
        "scale", "v1-b0", "--to", "macs=1G", "--axis", "width", "--beta", "1.2"
    )
