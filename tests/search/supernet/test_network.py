"""Shared weights: what a network of the space has of them."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from torch.nn import functional

from effnet.arch import NetworkSpec
from effnet.errors import UserError
from effnet.nn import EfficientNet
from effnet.search.supernet.envelope import envelope_of
from effnet.search.supernet.network import Supernet, part_of
from effnet.search.supernet.sandwich import random_point

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def supernet(space) -> Supernet:
    torch.manual_seed(0)
    net = Supernet(envelope_of(space))
    for parameter in net.parameters():  # Also scales and shifts, so that a wrong slice of them shows.
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def network(space, *, first: dict[str, object], second: dict[str, object] | None = None) -> NetworkSpec:
    """Return a network of the space with some values of the backbone's stages changed."""
    one, two = space.backbone.stages
    stages = (replace(one, **first), *(() if second is None else (replace(two, **second),)))
    return replace(space.backbone, stages=stages)


def test_an_extracted_network_gives_what_the_supernet_gives(space, supernet):
    draws = Random(3)
    for _ in range(12):
        spec = space.spec(random_point(space, draws))
        alone = supernet.extract(spec)
        assert isinstance(alone, EfficientNet)
        assert alone.spec == spec
        torch.testing.assert_close(alone.train()(IMAGES), supernet(IMAGES, spec))


def test_a_block_has_the_first_channels_and_the_centre_of_the_kernel(space, supernet):
    """The fused block with expansion 2 and kernel 3, computed from the supernet's tensors by hand."""
    spec = network(space, first={"expand_ratio": 2, "channels": 12, "kernel_size": 3})
    block = supernet.stages[0][0]["fused_mbconv"]

    def norm(x, layer, channels):
        return functional.batch_norm(
            x, None, None, layer.weight[:channels], layer.bias[:channels], training=True, eps=1e-3
        )

    x = functional.silu(
        norm(functional.conv2d(functional.pad(IMAGES, (0, 1, 0, 1)), supernet.stem.conv.weight, stride=2),
             supernet.stem.norm, 8)
    )  # fmt: skip
    expanded = functional.conv2d(x, block.expand.conv.weight[:16, :8, 1:4, 1:4], padding=1)
    x = functional.silu(norm(expanded, block.expand.norm, 16))
    x = norm(functional.conv2d(x, block.project.conv.weight[:12, :16]), block.project.norm, 12)
    x = functional.silu(
        norm(functional.conv2d(x, supernet.heads["1"].conv.weight), supernet.heads["1"].norm, 16)
    )
    torch.testing.assert_close(supernet(IMAGES, spec), supernet.classifier(x.mean((2, 3))))


@torch.no_grad()
def test_kernel_5_contains_kernel_3(space, supernet):
    weight = supernet.stages[0][0]["mbconv"].depthwise.conv.weight
    ring = torch.ones(5, 5, dtype=torch.bool)
    ring[1:4, 1:4] = False
    small, large = (
        network(space, first={"operation": "mbconv", "expand_ratio": 3, "kernel_size": size})
        for size in (3, 5)
    )
    assert not torch.allclose(supernet(IMAGES, small), supernet(IMAGES, large))
    weight[:, :, ring] = 0.0
    torch.testing.assert_close(supernet(IMAGES, small), supernet(IMAGES, large))


@torch.no_grad()
def test_expansion_3_contains_expansion_2(space, supernet):
    block = supernet.stages[0][0]["mbconv"]
    small, large = (
        network(space, first={"operation": "mbconv", "expand_ratio": ratio, "se_ratio": 0.25})
        for ratio in (2, 3)
    )
    assert not torch.allclose(supernet(IMAGES, small), supernet(IMAGES, large))
    # Channels that are nothing: their norms add no shift, and an activation of 0 is 0.
    block.expand.conv.weight[16:] = 0.0
    for norm in (block.expand.norm, block.depthwise.norm):
        norm.bias[16:] = 0.0
    torch.testing.assert_close(supernet(IMAGES, small), supernet(IMAGES, large))


def test_a_shallow_stage_is_the_beginning_of_a_deep_one(space, supernet):
    shallow, deep = (
        supernet.extract(network(space, first={"operation": "mbconv", "repeats": number}))
        for number in (1, 2)
    )
    assert [len(net.stages[0]) for net in (shallow, deep)] == [1, 2]
    ours = shallow.stages[0][0].state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in deep.stages[0][0].state_dict().items())


def test_operations_and_plain_blocks_share_no_weights(space, supernet):
    specs = [
        network(space, first={"operation": operation, "expand_ratio": ratio})
        for operation in ("mbconv", "fused_mbconv")
        for ratio in (1, 2)
    ]
    used = []
    for spec in specs:
        supernet.zero_grad()
        supernet(IMAGES, spec).square().sum().backward()
        stage = supernet.stages[0]
        used.append({name for name, p in stage.named_parameters() if p.grad is not None})
    assert all(used)
    assert not any(one & other for index, one in enumerate(used) for other in used[index + 1 :])


def test_networks_with_and_without_the_last_stage_have_heads_of_their_own(space, supernet):
    supernet(IMAGES, network(space, first={})).square().sum().backward()
    assert supernet.heads["1"].conv.weight.grad is not None
    assert supernet.heads["2"].conv.weight.grad is None


def test_gradients_reach_the_shared_part_alone(space, supernet):
    spec = network(space, first={"operation": "mbconv", "expand_ratio": 2})
    supernet(IMAGES, spec).square().sum().backward()
    gradient = supernet.stages[0][0]["mbconv"].depthwise.conv.weight.grad
    assert bool((gradient[:16, :, 1:4, 1:4] != 0).any())
    gradient[:16, :, 1:4, 1:4] = 0.0
    assert not gradient.any()


def test_drop_rates_hold_for_one_call(space, supernet):
    spec = network(space, first={"expand_ratio": 2, "repeats": 2})
    torch.manual_seed(0)
    dropped = supernet(IMAGES, spec, dropout_rate=0.5, drop_path_rate=0.5)
    torch.testing.assert_close(supernet(IMAGES, spec), supernet(IMAGES, spec))
    assert not torch.allclose(dropped, supernet(IMAGES, spec))


def test_an_extracted_network_has_weights_of_its_own(space, supernet):
    spec = network(space, first={})
    alone = supernet.extract(spec)
    before = alone.stem.conv.weight.clone()
    with torch.no_grad():
        supernet.stem.conv.weight.zero_()
    assert torch.equal(alone.stem.conv.weight, before)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in alone.parameters())


def test_a_supernet_has_no_statistics_to_keep(supernet):
    assert dict(supernet.named_buffers()).keys() <= {
        name for name, _ in supernet.named_buffers() if name.endswith("rate")
    }
    assert supernet.state_dict().keys() == dict(supernet.named_parameters()).keys()


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (
            {"kernel_size": 7, "expand_ratio": 2},
            "the network has a layer of shape [16, 8, 7, 7], and the supernet's is [24, 8, 5, 5]; it is not "
            "of the space that the supernet was made for",
        ),
        (
            {"operation": "conv"},
            "the supernet has no weights for stages.0.0.project.conv.weight of tiny; it is not of the space "
            "that the supernet was made for",
        ),
    ],
)
def test_a_network_of_another_space_is_refused(space, supernet, first, message):
    with pytest.raises(UserError) as caught:
        supernet.extract(network(space, first=first))
    assert str(caught.value) == message


def test_a_part_is_a_view():
    weight = torch.arange(4.0 * 3 * 5 * 5).reshape(4, 3, 5, 5)
    part = part_of(weight, (2, 3, 3, 3))
    assert torch.equal(part, weight[:2, :, 1:4, 1:4])
    assert part.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()


def test_blocks_that_can_be_left_out_begin_as_identities(space):
    torch.manual_seed(0)
    net = Supernet(envelope_of(space))
    shallow, deep = (network(space, first={"expand_ratio": 2, "repeats": number}) for number in (1, 2))
    torch.testing.assert_close(net(IMAGES, shallow), net(IMAGES, deep))
    # Where a network may be without residuals, nothing would come through such a block.
    assert all(bool((block["mbconv"].project.norm.weight == 1).all()) for block in net.stages[1])


def test_a_network_without_head_and_with_a_pooled_stem_is_shared_as_well(space):
    backbone = replace(space.backbone, head_channels=0, stem_kernel_size=7, stem_pooling=True)
    headless = replace(space, backbone=backbone)
    net, draws = Supernet(envelope_of(headless)), Random(0)
    for _ in range(4):
        spec = headless.spec(random_point(headless, draws))
        torch.testing.assert_close(net.extract(spec).train()(IMAGES), net(IMAGES, spec))
