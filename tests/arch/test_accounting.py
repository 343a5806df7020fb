"""What must hold between the parts of a cost, for every network and size."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.arch import NetworkSpec, StageSpec, names, network, network_cost

NETWORKS = st.sampled_from(names())


def test_a_tiny_network_counted_by_hand():
    stage = StageSpec(
        operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1, se_ratio=0.25
    )
    spec = NetworkSpec(
        name="hand",
        stages=(stage,),
        stem_channels=4,
        head_channels=10,
        image_size=9,
        train_size=9,
        num_classes=3,
    )
    layers = {
        layer.name: (layer.params, layer.macs, layer.output_size) for layer in network_cost(spec).layers
    }
    assert layers == {
        "stem": (3 * 9 * 4 + 8, 3 * 9 * 4 * 25, 5),
        "stages.0.0.expand": (4 * 8 + 16, 4 * 8 * 25, 5),
        "stages.0.0.depthwise": (9 * 8 + 16, 9 * 8 * 9, 3),
        "stages.0.0.squeeze_excite.reduce": (8 * 1 + 1, 8, 1),
        "stages.0.0.squeeze_excite.expand": (1 * 8 + 8, 8, 1),
        "stages.0.0.project": (8 * 8 + 16, 8 * 8 * 9, 3),
        "head": (8 * 10 + 20, 8 * 10 * 9, 3),
        "classifier": (10 * 3 + 3, 30, 1),
    }


@given(name=NETWORKS, image_size=st.integers(1, 800))
def test_totals_are_sums_of_layers(name, image_size):
    cost = network_cost(network(name), image_size)
    assert cost.image_size == image_size
    for total in ("params", "norm_stats", "macs", "activations"):
        assert getattr(cost, total) == sum(getattr(layer, total) for layer in cost.layers)
    assert len({layer.name for layer in cost.layers}) == len(cost.layers)


@given(name=NETWORKS, image_size=st.integers(1, 800))
def test_image_size_changes_macs_but_no_parameter(name, image_size):
    small, large = (network_cost(network(name), image_size + extra) for extra in (0, 32))
    assert (small.params, small.norm_stats) == (large.params, large.norm_stats)
    assert small.macs < large.macs
    assert small.activations < large.activations


@given(name=NETWORKS, classes=st.integers(1, 30_000))
def test_classes_change_the_classifier_alone(name, classes):
    spec = replace(network(name), num_classes=classes)
    *layers, classifier = network_cost(spec).layers
    assert tuple(layers) == network_cost(network(name)).layers[:-1]
    assert classifier.params == (spec.feature_channels + 1) * classes


@pytest.mark.parametrize("name", ["v1-b3", "v2-s"])
def test_residual_and_activation_cost_nothing(name):
    spec = network(name)
    changed = replace(spec.with_stages(residual=False), activation="relu", padding="symmetric")
    assert network_cost(changed).layers == network_cost(spec).layers


def test_batch_norm_has_as_many_statistics_as_trainable_values():
    cost = network_cost(network("v1-b0"))
    convolutions = [layer for layer in cost.layers if layer.norm_stats]
    channels = sum(layer.norm_stats // 2 for layer in convolutions)
    assert cost.norm_stats == 2 * channels == 42_016


def test_odd_sizes_round_up_at_every_stride():
    sizes = [
        layer.output_size for layer in network_cost(network("v2-b0"), 75).layers if layer.output_size > 1
    ]
    assert list(dict.fromkeys(sizes)) == [38, 19, 10, 5, 3]
